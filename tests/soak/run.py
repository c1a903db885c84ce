"""One run: build everything, break it for a while, mend it, drain it and check it."""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.endpoint.server import Endpoint
from tests.kubernetes.api import Api
from tests.kubernetes.pods import Pods
from tests.soak.caller import Caller
from tests.soak.checker import Checker
from tests.soak.content import BLOCK
from tests.soak.ledger import CheckedStore, Ledger
from tests.soak.measured import Held, held, most
from tests.soak.nemesis import Nemesis
from tests.soak.producer import Producer
from tests.support.programs import Server, wait_for

MIB = 2**20
MEMORY, CONNECTIONS, SETTLE = 8 * MIB, 8, 2.0
STAGING = 24  # MiB of the disk for copies
SENDERS = 8  # and as many readers: threads that the engine makes as it needs them
SLACK = 64  # MiB that a process may hold beyond its start and its content: allocator, queues, listings


@dataclass(frozen=True)
class Plan:
    """`largest` in bytes; `burst` in files."""

    seconds: float
    seed: str
    shards: int
    largest: int
    burst: int
    drops: bool


class StagedPods(Pods):
    """Pods that each have a staging folder of their own, on one small disk."""

    def pod(self, ordinal: int, host: str | None = None) -> Server:
        server = super().pod(ordinal, host)
        staging = self.folder / "staging" / (host or str(ordinal))
        staging.mkdir(parents=True, exist_ok=True)
        server.env["NFS_WATCH_STAGING"] = str(staging)
        server.output = self.folder / f"shard-{ordinal}{'-twin' if host else ''}.log"
        return server


def staged(folder: Path) -> list[str]:
    """List the copies on the staging disk, without those of a killed second process of an ordinal."""
    found = [os.path.join(at, name) for at, _, names in os.walk(folder / "staging") for name in names]
    return [path for path in found if "127.0.3" not in path]


class Soak:
    """Prints its progress; `run` returns the exit code."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.ledger = Ledger()
        self.figures: Counter[str] = Counter()
        self.drained_after = -1.0

    def run(self) -> int:
        plan = self.plan
        print(
            f"soak: seed {plan.seed}, {plan.seconds:.0f} s, {plan.shards} shards, files up to {plan.largest // MIB} MiB",
            flush=True,
        )
        (self.folder / "staging").mkdir()
        disk = ["mount", "-t", "tmpfs", "-o", f"size={STAGING}m", "tmpfs", str(self.folder / "staging")]
        subprocess.run(disk, check=False)
        with Api(trustme.CA()) as api, Endpoint(CheckedStore(self.ledger)) as endpoint:
            pods = StagedPods(
                self.folder, api, endpoint.connection_string, block_size=BLOCK, memory=MEMORY, connections=CONNECTIONS,
                settle=SETTLE, settle_empty=4, retention=1, sweep_interval=0.3, scan_interval=0.3, queue_size=300, max_sessions=2,
            )  # fmt: skip
            try:
                self._run(pods, endpoint)
            finally:
                pods.kill()
        return self._report()

    def _run(self, pods: Pods, endpoint: Endpoint) -> None:
        plan, ledger = self.plan, self.ledger
        pods.scale(plan.shards)
        pods.router.up()
        idle = most(held(server.pid) for server in pods.shards.values())
        sessions = [f"s{number}" for number in range(plan.shards)]
        caller = Caller(pods, sessions, f"{plan.seed}/caller", stops=0.03)
        wait_for(caller.ensure, "the sessions to run", interval=0.5)
        nemesis = Nemesis(pods, endpoint, f"{plan.seed}/nemesis", most=plan.shards, drops=plan.drops, pause=1.0)
        producers = [
            Producer(
                pods.root,
                name,
                f"{plan.seed}/{name}",
                ledger,
                largest=plan.largest,
                burst=plan.burst,
                may_pause=SETTLE * 0.6,
            )
            for name in sessions
        ]
        checker = Checker(pods.root, ledger, lambda: [one.pid for one in list(pods.shards.values()) if one.process])
        begin: list[Callable[[], None]] = [checker.start, nemesis.start, caller.start]
        for start in [*begin, *(producer.start for producer in producers)]:
            start()
        end = time.monotonic() + plan.seconds
        while time.monotonic() < end and not ledger.wrong and not nemesis.failed:
            time.sleep(0.5)
            with endpoint.log._lock:  # it would grow for as long as this runs
                self.figures["requests"] += len(endpoint.log._entries)
                endpoint.log._entries.clear()
        try:
            for producer in producers:
                producer.end()
            caller.end()
        finally:
            nemesis.rest()
        if nemesis.failed:
            ledger.wrong.append(f"the nemesis itself failed: {nemesis.failed!r}")
        self._drain(pods, caller, nemesis, sessions, producers)
        checker.end()
        ledger.check_end(endpoint.store.blobs("uploads"))
        self._check_held(pods, idle, checker)
        self._check_logs()
        for counted in (ledger.counted, nemesis.done, nemesis.exits, caller.counted, checker.counted):
            self.figures.update(counted)
        for word, number in nemesis.exits.items():
            code = int(word.rsplit(" ", 1)[1])
            if not (code == 1 and nemesis.clock_off_until):  # the store refuses the credentials while the clock is off
                ledger.wrong.append(f"a program ended by itself: {word} ({number} times)")

    def _drain(
        self, pods: Pods, caller: Caller, nemesis: Nemesis, sessions: list[str], producers: list[Producer]
    ) -> None:
        """When all is mended, every file has to leave the share and every session to end."""
        began = time.monotonic()
        bound = 240 + self.plan.seconds / 2
        left_alone = {f"{producer.session}/{name}" for producer in producers for name in producer.left_alone}
        records = pods.root / ".nfs-watch/sessions"
        left: list[str] = []
        told: set[str] = set()
        next_call = 0.0
        while time.monotonic() < began + bound and not self.ledger.wrong:
            nemesis.look_after()
            left = [path for path in pods.left() if path not in left_alone]
            if time.monotonic() > next_call:
                if not told and left:
                    told = set(sessions) if caller.ensure() else set()
                    self.drained_after = -1.0
                for name in told or sessions:  # without `told` some may have to end before another finds room
                    caller.drain(name)
                if left and not list(records.iterdir()):
                    told = set()  # put back by hand after their session had ended: a person starts it again
                next_call = time.monotonic() + 5
            if not left and not list(records.iterdir()):
                self.drained_after = time.monotonic() - began
                break
            time.sleep(0.3)
        if self.drained_after < 0 and not self.ledger.wrong:
            state = [(one["session"], one["state"], one.get("files"), one.get("last_error")) for one in caller.status()]
            self.ledger.wrong.append(
                f"not drained after {bound:.0f} s: {len(left)} files {left[:5]}, {state}, {[one.name for one in records.iterdir()]}"
            )
        self.ledger.wrong += [
            f"{one.session}: what nobody may take was taken" for one in producers if not one.untouched()
        ]
        with suppress(AssertionError):
            wait_for(lambda: not staged(pods.folder), "an empty folder of copies")
        if left_over := staged(pods.folder):
            self.ledger.wrong.append(f"left in staging: {left_over[:5]}")

    def _check_held(self, pods: Pods, idle: Held, checker: Checker) -> None:
        at_rest = most(held(server.pid) for server in pods.shards.values())
        peak = checker.peak
        print(f"  a shard at its start: {idle}\n  at most: {peak}\n  at rest in the end: {at_rest}")
        for what, found, bound in (
            ("MiB at most", peak.resident, idle.resident + MEMORY / MIB + SLACK),
            ("threads at rest", at_rest.threads, idle.threads + 2 * SENDERS + 2),
            ("descriptors at rest", at_rest.descriptors, idle.descriptors + 2 * CONNECTIONS + 2 * SENDERS + 8),
        ):
            if found > bound:
                self.ledger.wrong.append(f"grown: {found:.0f} {what}, where {bound:.0f} are allowed")

    def _check_logs(self) -> None:
        """Fail for a stack trace, which is a defect that no other check noticed."""
        for log in self.folder.glob("*.log"):
            text = log.read_text(errors="replace")
            if found := re.search(r"^.*Traceback.*$", text, re.MULTILINE):
                self.ledger.wrong.append(f"{log.name}: {found[0][:2000]}")
            for line in text.splitlines():
                for event in ("file.unproven", "file.changed", "upload.resumed", "upload.present", "upload.recovered"):
                    if f'"{event}"' in line:
                        self.figures[f"log lines {event}"] += 1

    def _report(self) -> int:
        wrong = self.ledger.wrong
        for word, number in sorted(self.figures.items()):
            print(f"  {number:>12,} {word}")
        print(f"  {self.drained_after:>12.1f} s until all was drained")
        print(f"  {len(wrong):>12} things wrong")
        for line in wrong[:20]:
            print(f"WRONG: {line}")
        print(f"soak: seed {self.plan.seed}: {'FAILED' if wrong else 'nothing was lost'}", flush=True)
        return 1 if wrong else 0

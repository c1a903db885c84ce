"""What a shard costs that has nothing to do: with an empty folder, with known files, and with the records of others."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import report
from tests.bench.endpoint import discard
from tests.bench.goals import Goal, known
from tests.bench.measured import cpu_of, memory_of
from tests.bench.product import product, start
from tests.bench.row import Asked, Row
from tests.support.programs import Server, wait_for
from uploader.session import Session, State
from uploader.sessions.service import RECONCILE

SECONDS = 60
SETTLED = 10  # seconds after which what the start has left to do is done
LIMIT = 240
KNOWN, SESSIONS = 10_000, 1000


@dataclass(frozen=True)
class Quiet:
    """`cpu`: share of a core; `memory`: resident bytes; `reads`: read calls a second."""

    cpu: float
    memory: int
    reads: float


def idle(asked: Asked) -> list[str]:
    """Measure a session without a file, and one with files that wait for their retention."""
    found = {"empty folder": _with_files(asked, 0), f"{KNOWN:,} known files": _with_files(asked, KNOWN)}
    rows = [[name, f"{it.cpu:.2%}", f"{it.memory / 2**20:.0f}", f"{it.reads:.1f}"] for name, it in found.items()]
    goals: list[Goal] = []
    for name, it in found.items():
        goals.append(known(f"{name}: CPU, % of a core", it.cpu * 100, most=0.5))
        goals.append(known(f"{name}: resident, MiB", it.memory / 2**20, most=80.0))
    head = ["one session", "CPU, of a core", "resident MiB", "read calls/s"]
    return [*report.plain(head, rows), "", *report.goals(goals, {})]


def records(asked: Asked) -> list[str]:
    """Measure a shard without a session, beside the records of none and of many that run elsewhere."""
    found = {count: _with_records(asked, count) for count in (0, SESSIONS)}
    looks = {count: (it.cpu * RECONCILE * 1000, it.reads * RECONCILE) for count, it in found.items()}
    rows = [[f"{count:,}", f"{cpu:.1f}", f"{reads:.0f}"] for count, (cpu, reads) in looks.items()]
    more = [looks[SESSIONS][index] - looks[0][index] for index in (0, 1)]
    goals = [
        known(f"read calls in each {RECONCILE:g} s for {SESSIONS:,} records", more[1], most=5.0),
        known("CPU for them, ms", more[0], most=5.0),
    ]
    head = ["records", f"CPU in each {RECONCILE:g} s, ms", f"read calls in each {RECONCILE:g} s"]
    return [*report.plain(head, rows), "", *report.goals(goals, {})]


def _with_files(asked: Asked, count: int) -> Quiet:
    root = Path(tempfile.mkdtemp(dir=asked.scratch))
    (root / "run").mkdir()
    for index in range(count):
        (root / "file").write_bytes(index.to_bytes(4, "big") * 250)
        os.rename(root / "file", root / f"run/{index:06}.bin")
    with discard(asked.scratch, tls=False) as endpoint:
        server = product(root, asked.scratch, endpoint)

        def begin() -> None:
            start(server, "run")
            wait_for(lambda: _completed(root / "run") == count, f"{count} files to be uploaded", LIMIT)

        return _quiet(server, root, asked, begin)


def _completed(folder: Path) -> int:
    return sum(entry.name.endswith(".completed") for entry in os.scandir(folder))


def _with_records(asked: Asked, count: int) -> Quiet:
    root = Path(tempfile.mkdtemp(dir=asked.scratch))
    folder = root / ".nfs-watch/sessions"
    folder.mkdir(parents=True)
    one = Session("", State.ACTIVE, 5, "2026-01-01T00:00:00.000Z")
    for number in range(count):
        record = replace(one, name=f"run-{number}")
        (folder / f"{record.name}.json").write_bytes(record.to_json())
    with discard(asked.scratch, tls=False) as endpoint:
        return _quiet(product(root, asked.scratch, endpoint, replicas=10), root, asked, lambda: None)


def _quiet(server: Server, root: Path, asked: Asked, begin: Callable[[], None]) -> Quiet:
    try:
        server.up()
        begin()
        time.sleep(SETTLED)
        before, cpu, began = _reads(server.pid), cpu_of(server.pid), time.monotonic()
        time.sleep(SECONDS / (6 if asked.quick else 1))
        took = time.monotonic() - began
        used, reads = cpu_of(server.pid) - cpu, _reads(server.pid) - before
        return Quiet(used / took, memory_of(server.pid, "VmRSS"), reads / took)
    finally:
        server.kill()
        shutil.rmtree(root)


def _reads(pid: int) -> int:
    """Return how many read calls a process has made."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscr:"))


IDLE = Row("idle", f"nothing to do for {SECONDS} s: one session, files that are known", idle)
RECORDS = Row("records", f"the records of {SESSIONS:,} sessions that run on other shards, for {SECONDS} s", records)

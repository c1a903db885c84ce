"""What receipts cost, and what the looks at who has a file open cost: the same shard with them and without."""

import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench import report
from tests.bench.endpoint import Discard, discard
from tests.bench.goals import OURS, known
from tests.bench.measured import cpu_of
from tests.bench.peers import RUNS
from tests.bench.product import alive, product, start
from tests.bench.row import Asked, Row
from tests.bench.work import fill
from tests.support.programs import Server
from uploader.naming import COMPLETED

COUNT, SIZE = 5000, 20_000
TURNS = 7  # at least: a cost of a few percent drowns in the noise of fewer
LIMIT = 240  # seconds that a run may take
SWEEP = 1  # seconds between two sweeps, and of retention, so that receipts and deletions fall into the run
HEAD = f"""{COUNT:,} files of {SIZE / 1000:.0f} kB on a disk, plain http, no latency, retention and sweep interval {SWEEP} s: time until the last is sent, CPU until the last is
deleted. The shards take turns, {TURNS} times or more, forwards and backwards; a share is the median of those of the turns. Calls are system calls
of one more run, as strace counts them.
"""
LINE = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)  # of strace's table: calls, name


@dataclass
class Runs:
    """Of one kind of shard: CPU and wall of each turn in seconds, and calls a file."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    calls: float = 0.0
    syncs: float = 0.0


def measure(without: dict[str, str], most: float, asked: Asked) -> list[str]:
    """Compare a whole shard with `without` (by the table's name that of without.py), all of them with the last one.

    `most`: its CPU and time may be multiplied by that much at most.
    """
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="nfs-watch-bench-"))  # /tmp may be memory
    count = COUNT // (10 if asked.quick else 1)
    found = {name: Runs() for name in (OURS, *without)}
    try:
        (folder / "files").mkdir()
        for index in range(count):
            fill(folder / f"files/{index:06}.bin", SIZE)
        with discard(folder, tls=False) as endpoint:
            for turn in range(1 if asked.quick else max(asked.repeats, TURNS)):
                for name, runs in list(found.items())[:: -1 if turn % 2 else 1]:
                    with _site(folder, endpoint, without.get(name)) as (server, session):
                        cpu = cpu_of(server.pid)
                        runs.wall.append(move(server, session))
                        runs.cpu.append(cpu_of(server.pid) - cpu)
            for name, runs in found.items() if shutil.which("strace") else ():
                with _site(folder, endpoint, without.get(name)) as (server, session):
                    calls = _traced(server, session, folder / "calls")
                runs.calls = sum(calls.values()) / count
                runs.syncs = calls.get("fsync", 0) / count
    finally:
        shutil.rmtree(folder)
    return _told(found, count, most)


def _told(found: dict[str, Runs], count: int, most: float) -> list[str]:
    *compared, base = found
    rows, goals = [], []
    for name, it in found.items():
        cpu, wall = _share(it.cpu, found[base].cpu), _share(it.wall, found[base].wall)
        each = statistics.median(it.cpu) / count * 1000
        rows.append([name, f"{each:.3f}", f"{cpu:.3f}", f"{wall:.3f}", f"{it.calls:.1f}", f"{it.syncs:.3f}"])
        if name in compared:
            goals.append(known(f"{name}: CPU, of that {base}", cpu, most=most))
            goals.append(known(f"{name}: time, of that {base}", wall, most=most))
    head = ["shard", "CPU a file, ms", f"CPU, of that {base}", f"time, of that {base}", "calls a file", "fsyncs a file"]
    return [HEAD, *report.plain(head, rows), "", *report.goals(goals, {})]


def _share(ours: list[float], others: list[float]) -> float:
    """Return the median of the ratios of the turns."""
    return statistics.median(one / other for one, other in zip(ours, others, strict=True))


@contextmanager
def _site(folder: Path, endpoint: Discard, without: str | None) -> Iterator[tuple[Server, Path]]:
    """Run a shard on a share of its own that has all files in a session's folder; yield it and the folder."""
    root = folder / "share"
    session = root / f"run-{next(RUNS)}"
    session.mkdir(parents=True)
    for entry in os.scandir(folder / "files"):
        os.link(entry.path, session / entry.name)
    server = shard(root, folder, endpoint, without)
    try:
        server.up()
        yield server, session
    finally:
        server.kill()
        shutil.rmtree(root)


def shard(root: Path, scratch: Path, endpoint: Discard, without: str | None) -> Server:
    """Make a shard, not started, that deletes files soon; `without`: what without.py takes from it."""
    server = product(root, scratch, endpoint, retention=SWEEP, sweep_interval=SWEEP)
    if without:
        server.argv = [*server.argv[:-1], "tests.bench.without", without]
    return server


def move(server: Server, session: Path) -> float:
    """Start the session, wait until no file is left, and return after how many seconds every file had been sent."""
    began, sent = time.perf_counter(), 0.0
    start(server, session.name)
    while names := os.listdir(session):
        if not sent and all(name.endswith(COMPLETED) for name in names):
            sent = time.perf_counter() - began
        assert time.perf_counter() - began < LIMIT, f"not finished after {LIMIT} s:\n{server.log()[-3000:]}"
        alive(server)
        time.sleep(0.02)
    return sent or time.perf_counter() - began


def _traced(server: Server, session: Path, output: Path) -> dict[str, int]:
    """Do the same while strace looks on; return how often each system call was made."""
    argv = ["strace", "--follow-forks", "--summary-only", "--output", str(output), "--attach", str(server.pid)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        strace.stderr.readline()  # it says that it is attached
        move(server, session)
        strace.send_signal(signal.SIGINT)
        strace.communicate()
    return {name: int(calls) for calls, name in LINE.findall(output.read_text()) if name != "total"}


_LOOKS = {f"{OURS}, with fsync in place of the lease": "lease", "without either": "look"}
RECEIPTS = Row("receipts", "what receipts cost", partial(measure, {"without receipts": "receipts"}, 1.02))
LEASE = Row("lease", "what it costs to see who has a file open", partial(measure, _LOOKS, 1.03))

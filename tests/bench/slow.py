"""One file on a slow line: what is seen of its progress, what a kill costs, and how soon a stop at once is done."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx

from tests.bench import report
from tests.bench.endpoint import Discard, discard, stats
from tests.bench.goals import Goal, known
from tests.bench.product import alive, product, start
from tests.bench.row import Asked, Row
from tests.bench.work import MIB, fill
from tests.support.programs import Server, wait_for

LINES = {1: 10, 10: 40, 100: 256}  # Mbit/s: MiB of the file
LATENCY = 0.05
LIMIT = 180  # seconds that a part may take
HEAD = f"""The endpoint reads so slowly, with the windows and segments of a network, and {LATENCY * 1000:.0f} ms pass before each answer; plain http. The
client is killed with SIGKILL when half has arrived, and started again. Then another file is stopped with `drain: false` after 3 s.
The share of the line is that from a process's first byte to its last.
"""
Sample = tuple[float, int, int]
"""Seconds, bytes that have arrived in all, bytes in the status."""


@dataclass(frozen=True)
class Slow:
    """`step`: the longest time without progress, s; `busy`: share of the line; `again`: seconds of the line that was
    sent twice; `ended`: seconds from the call to stop until the file is given back or finished.
    """

    step: float
    busy: float
    again: float
    ended: float

    def cells(self) -> list[str]:
        return [f"{self.step:.1f}", f"{self.busy:.0%}", f"{self.again:.1f}", f"{self.ended:.1f}"]


def measure(asked: Asked) -> list[str]:
    """Measure all lines at the same time: they need little of the machine."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(LINES, pool.map(partial(_line, asked), LINES), strict=True))
    head = [
        "line, Mbit/s",
        "longest wait for progress, s",
        "line busy",
        "sent again, s of the line",
        "stopped after, s",
    ]
    rows = [[str(line), *it.cells()] for line, it in found.items()]
    goals = [goal for line, it in found.items() for goal in _goals(line, it)]
    return [HEAD, *report.plain(head, rows), "", *report.goals(goals, {})]


def _goals(line: int, it: Slow) -> list[Goal]:
    at = f"{line} Mbit/s:"
    return [
        known(f"{at} longest wait for progress, s", it.step, most=2.0),
        known(f"{at} share of the line", it.busy, least=0.95),
        known(f"{at} sent again after a kill, s of the line", it.again, most=5.0),
        known(f"{at} a stop at once is done after, s", it.ended, most=2.0),
    ]


def _line(asked: Asked, line: int) -> Slow:
    scratch = Path(tempfile.mkdtemp(dir=asked.scratch))
    size, speed = LINES[line] * MIB // (4 if asked.quick else 1), line * 1e6 / 8
    try:
        fill(scratch / "file", size)
        with discard(scratch, tls=False, latency=LATENCY, line=speed) as endpoint:
            killed, resumed = _killed(scratch, endpoint, size)
        with discard(scratch, tls=False, latency=LATENCY, line=speed) as endpoint:
            ended = _stopped(scratch, endpoint)
    finally:
        shutil.rmtree(scratch)
    parts = [_busy(killed), _busy(resumed)]
    seconds, content = (sum(column) for column in zip(*parts, strict=True))
    step = max(_step(killed), _step(resumed))
    return Slow(step, content / seconds / speed, (resumed[-1][1] - size) / speed, ended)


def _killed(scratch: Path, endpoint: Discard, size: int) -> tuple[list[Sample], list[Sample]]:
    """Return what was seen before the kill and after it."""
    server, path = _started(scratch, endpoint, "run")
    try:
        first = _watched(server, endpoint, lambda sample: sample[1] >= size / 2)
        server.kill()
        server.up()
        done = path.with_name(f"{path.name}.completed")
        return first, _watched(server, endpoint, lambda _: done.exists())
    finally:
        server.kill()


def _stopped(scratch: Path, endpoint: Discard) -> float:
    """Stop a session at once; return the seconds until its file is given back or finished."""
    server, path = _started(scratch, endpoint, "stopped")
    try:
        _watched(server, endpoint, lambda sample: sample[0] >= 3 and sample[1] > 0)
        began = time.monotonic()
        body = {"session": "stopped", "drain": False}
        answer = httpx.post(f"{server.url}/v1/watch/stop", json=body, timeout=LIMIT, trust_env=False)
        assert answer.status_code == 200, answer.text
        done = path.with_name(f"{path.name}.completed")
        wait_for(lambda: path.exists() or done.exists(), "the file to be given back or finished", LIMIT, 0.01)
        return time.monotonic() - began
    finally:
        server.kill()


def _started(scratch: Path, endpoint: Discard, session: str) -> tuple[Server, Path]:
    """Start a session with the one file."""
    path = scratch / f"share-{session}" / session / "file"
    path.parent.mkdir(parents=True)
    os.link(scratch / "file", path)
    server = product(path.parent.parent, scratch, endpoint)
    server.up()
    start(server, session)
    return server, path


def _watched(server: Server, endpoint: Discard, end: Callable[[Sample], bool]) -> list[Sample]:
    """Sample until the end. Time is that since the first byte came, bytes are all that ever came."""
    samples: list[Sample] = []
    began, deadline = time.monotonic(), time.monotonic() + LIMIT
    with endpoint.client() as client, httpx.Client(timeout=60, trust_env=False) as asking:
        while not (samples and end(samples[-1])):
            assert time.monotonic() < deadline, f"not finished after {LIMIT} s:\n{server.log()[-3000:]}"
            alive(server)
            now, arrived = time.monotonic(), stats(client)[1]
            if samples and samples[-1][1] == samples[0][1] != arrived:
                began, samples = now, [(0.0, *samples[-1][1:])]
            sessions = asking.get(f"{server.url}/v1/watch/status").json()["sessions"]
            samples.append((now - began, arrived, sum(one["bytes"]["uploaded"] for one in sessions)))
            time.sleep(0.05)
    return samples


def _busy(samples: list[Sample]) -> tuple[float, int]:
    """Return the seconds from the first byte to the last, and the bytes of this time."""
    last = next(sample for sample in samples if sample[1] == samples[-1][1])
    return last[0] - samples[0][0], last[1] - samples[0][1]


def _step(samples: list[Sample]) -> float:
    """Return the longest time in which the status did not move."""
    moved = [now for (_, _, before), (now, _, after) in pairwise(samples) if after > before]
    return max(after - before for before, after in pairwise([0.0, *moved, samples[-1][0]]))


ROW = Row("slow", "one file on a line of 1, 10 and 100 Mbit/s (10, 40 and 256 MiB)", measure)

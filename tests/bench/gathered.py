"""The router over 1,000 shards, for which one listener stands in: the status of all, and the stream of events."""

import statistics
import time

import httpx

from tests.bench import report
from tests.bench.goals import known
from tests.bench.measured import cpu_of
from tests.bench.row import Asked, Row
from tests.scaling.shards import standing_in
from tests.support.programs import Server, router

SHARDS = 1000
TURNS = 5
WATCHED = 8.0  # seconds


def measure(asked: Asked) -> list[str]:
    """Ask some times, then watch as a browser does."""
    with standing_in(SHARDS, 4) as others:
        program = router(asked.scratch, others.url, replicas=SHARDS)
        try:
            program.up()
            took, away, size, cpu = _status(program)
            events, first, later = _stream(program)
        finally:
            program.kill()
    rows = [
        ["status of all, s", f"{took:.2f}"],
        ["shown as away, at most", str(away)],
        ["size of the answer, kB", f"{size / 1000:.0f}"],
        ["CPU of the router for it, s", f"{cpu:.2f}"],
        ["events a second, while all shards change", f"{events:.1f}"],
        ["the first event, kB", f"{first / 1000:.0f}"],
        ["a later one, kB", f"{later / 1000:.0f}"],
    ]
    goals = [known("shards shown as away", away, most=0), known("status of all, s", took, most=1.2)]
    return [*report.plain(["router", ""], rows), "", *report.goals(goals, {})]


def _status(program: Server) -> tuple[float, int, int, float]:
    """Return the median seconds of an answer, the most shards that were away, the bytes, and the router's CPU seconds."""
    took, away, size, before = [], 0, 0, cpu_of(program.pid)
    for _ in range(TURNS):
        began = time.monotonic()
        answer = httpx.get(f"{program.url}/v1/watch/status", timeout=60, trust_env=False)
        took.append(time.monotonic() - began)
        away = max(away, sum(not one["reachable"] for one in answer.json()["shards"]))
        size = len(answer.content)
    return statistics.median(took), away, size, (cpu_of(program.pid) - before) / TURNS


def _stream(program: Server) -> tuple[float, int, int]:
    """Return the events a second, the bytes of the first one, and the median bytes of the later ones."""
    sizes: list[int] = []
    began = time.monotonic()
    with httpx.stream("GET", f"{program.url}/v1/watch/events", timeout=60, trust_env=False) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                sizes.append(len(line))
            if time.monotonic() - began > WATCHED:
                break
    return len(sizes) / (time.monotonic() - began), sizes[0], round(statistics.median(sizes[1:] or sizes))


ROW = Row("shards", f"{SHARDS:,} shards (one listener stands in for them), each with four files in flight", measure)

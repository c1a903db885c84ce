"""A small file that comes while four files of 10 GiB fill a slow line."""

import os
import tempfile
import time
from pathlib import Path

from tests.bench import report
from tests.bench.endpoint import discard, stats
from tests.bench.goals import known
from tests.bench.product import alive, product, start
from tests.bench.row import Asked, Row
from tests.bench.work import GIB
from tests.support.programs import Server, wait_for

LINE = 10e6 / 8  # bytes/s
LATENCY = 0.05
LIMIT = 90  # seconds


def measure(asked: Asked) -> list[str]:
    """Put the small file there when the large ones have had the line for 10 s; all of them are holes, and cost no memory."""
    root = Path(tempfile.mkdtemp(dir=asked.scratch))
    session = root / "run"
    session.mkdir()
    with discard(asked.scratch, tls=False, latency=LATENCY, line=LINE) as endpoint, endpoint.client() as client:
        for index in range(4):
            with (root / f"{index}.bin").open("wb") as file:
                file.truncate(10 * GIB)
            os.rename(root / f"{index}.bin", session / f"{index}.bin")
        server = product(root, asked.scratch, endpoint)
        try:
            server.up()
            start(server, "run")
            wait_for(lambda: stats(client)[1] >= 10 * LINE, "10 s of the line", LIMIT)
            (root / "small").write_bytes(os.urandom(20_000))
            os.rename(root / "small", session / "small")
            seconds = _completed(server, session / "small.completed")
        finally:
            server.kill()
    goal = known("a file of 20 kB is in the store and marked after, s", seconds, most=10.0)
    return report.goals([goal], {})


def _completed(server: Server, path: Path) -> float:
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() - began < LIMIT, f"not there after {LIMIT} s:\n{server.log()[-3000:]}"
        alive(server)
        time.sleep(0.01)
    return time.monotonic() - began


ROW = Row("behind", "a file of 20 kB behind four files of 10 GiB, 10 Mbit/s, 50 ms", measure)

"""Limits, measured: python -m tests.soak.limits. Prints a table; a real shard, a real share's folder, our endpoint."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.endpoint.server import Endpoint
from tests.endpoint.store import Store
from tests.soak.measured import Held, held, most
from tests.support.programs import Server, shard, wait_for

GIB = 2**30


class Bench:
    """One shard on one share; `run` measures until a number of blobs is there."""

    def __init__(self, folder: Path, endpoint: Endpoint, server: Server) -> None:
        self.root = folder / "share"
        self.endpoint = endpoint
        self.server = server

    def start(self, session: str) -> None:
        answer = httpx.post(f"{self.server.url}/v1/watch/start", json={"session": session}, timeout=60)
        assert answer.status_code == 201, answer.text

    def run(self, what: str, sessions: list[str], blobs: int, timeout: float) -> None:
        peak, began = Held(0, 0, 0), time.monotonic()
        before = held(self.server.pid)
        for session in sessions:
            self.start(session)

        def done() -> bool:
            nonlocal peak
            peak = most([peak, held(self.server.pid)])
            try:
                return len(self.endpoint.store.blobs("uploads")) >= blobs
            except Exception:  # noqa: BLE001 no container yet
                return False

        wait_for(done, what, timeout, 0.2)
        took = time.monotonic() - began
        assert before
        print(
            f"{what}: {took:.1f} s, {before.resident:.0f} MiB before, {peak.resident:.0f} MiB at most, "
            f"{peak.threads} threads, {peak.descriptors} descriptors",
            flush=True,
        )


@contextmanager
def bench() -> Iterator[Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="limits-", ignore_cleanup_errors=True) as name,
        Endpoint(Store(keep_bytes=False)) as endpoint,
    ):
        folder = Path(name)
        (folder / "share").mkdir()
        server = shard(folder, folder / "share", endpoint.connection_string, settle=0, max_sessions=1000, retention=0)
        server.up()
        try:
            yield Bench(folder, endpoint, server)
        finally:
            server.kill()


def huge(size: int = 10 * GIB) -> None:
    with bench() as one:
        (one.root / "run").mkdir()
        with (one.root / "run/huge.bin").open("wb") as file:
            file.truncate(size)
        one.run(f"one file of {size / GIB:.0f} GiB, block_size 8 MiB, memory 128 MiB", ["run"], 1, 900)
        blob = one.endpoint.store.blob("uploads", "run/huge.bin")
        assert blob.length == size
        print(f"  {len(blob.committed or [])} blocks")


def many(count: int = 30_000) -> None:
    with bench() as one:
        for number in range(count):
            target = one.root / f"run/{number // 1000}/{number}.bin"
            if number % 1000 == 0:
                target.parent.mkdir(parents=True)
            target.write_bytes(b"x")
        one.run(f"{count} files in one session, 1,000 in each folder", ["run"], count, 600)


def wide(count: int = 20_000) -> None:
    with bench() as one:
        (one.root / "run").mkdir()
        for number in range(count):
            (one.root / f"run/{number}.bin").write_bytes(b"x")
        one.run(f"{count} files in one folder", ["run"], count, 600)


def deep(depth: int = 400) -> None:
    with bench() as one:
        target = one.root / "run" / Path(*["d"] * depth)
        target.mkdir(parents=True)
        (target / "x.bin").write_bytes(b"x")
        one.run(f"a file {depth} folders deep", ["run"], 1, 60)


def sessions(count: int = 200) -> None:
    with bench() as one:
        names = [f"s{number}" for number in range(count)]
        for name in names:
            (one.root / name).mkdir()
            (one.root / name / "x.bin").write_bytes(b"x")
        one.run(f"{count} sessions at a time on one shard", names, count, 300)


ALL: list[Callable[[], None]] = [deep, sessions, wide, many, huge]

if __name__ == "__main__":
    for each in ALL:
        if len(sys.argv) == 1 or each.__name__ in sys.argv:
            each()

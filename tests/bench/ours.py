"""nfs-watch from end to end: from `POST /v1/watch/start` until the last file is named `.completed`."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.endpoint import Discard, stats
from tests.bench.measured import Measured, cpu_of, memory_of
from tests.bench.peers import RUNS, size
from tests.bench.product import alive, product, start
from tests.support.programs import Server

LIMIT = 240  # seconds that a run may take
SETTLED = 6  # seconds until the links, which change the files' ctimes, are older than NFS_WATCH_SETTLE
Sample = tuple[float, int, int]
"""Seconds since the start, requests, resident bytes."""


def ours(
    folder: Path,
    scratch: Path,
    endpoint: Discard,
    *,
    md5: bool = True,
    staging: bool = False,
    tree: Path | None = None,
    sampled: Callable[[Sample], None] | None = None,
) -> Measured:
    """Upload a folder's files, which are linked into a session's folder and stay in their own."""
    root = scratch / "share"
    session = root / f"run-{next(RUNS)}"
    session.mkdir(parents=True)
    for entry in os.scandir(folder):
        os.link(entry.path, session / entry.name)
    time.sleep(SETTLED)
    settings: dict[str, object] = {"content_md5": str(md5).lower()}
    if staging:
        (scratch / "staging").mkdir()
        settings["staging"] = scratch / "staging"
    try:
        return uploaded(product(root, scratch, endpoint, tree, **settings), session, endpoint, sampled)
    finally:
        shutil.rmtree(root)
        shutil.rmtree(scratch / "staging", ignore_errors=True)


def uploaded(
    server: Server, session: Path, endpoint: Discard, sampled: Callable[[Sample], None] | None = None
) -> Measured:
    """Let a shard that was not started upload a session's folder; it is killed at the end."""
    files, content = size(session)
    try:
        server.up()
        with endpoint.client() as client:
            before = stats(client)
            cpu, started = cpu_of(server.pid), time.perf_counter()
            start(server, session.name)
            while not _finished(session, files, content, stats(client)[1] - before[1]):
                now = time.perf_counter() - started
                assert now < LIMIT, f"not finished after {LIMIT} s:\n{server.log()[-3000:]}"
                alive(server)
                if sampled:
                    sampled((now, stats(client)[0] - before[0], memory_of(server.pid, "VmRSS")))
                    time.sleep(0.1)
            wall = time.perf_counter() - started
            used = cpu_of(server.pid) - cpu
            requests = stats(client)[0] - before[0]
        return Measured(wall, used, memory_of(server.pid), files, content, requests)
    finally:
        server.kill()


def _finished(session: Path, files: int, content: int, received: int) -> bool:
    """The endpoint's counter is cheap to ask; list the names only when all bytes have arrived.

    Few questions: they take a processor that both sides need, and nobody asks while a peer runs. The end is seen to 10 ms.
    """
    if received < content:
        time.sleep(0.01 + 0.2 * (content - received) / content)
        return False
    if sum(entry.name.endswith(".completed") for entry in os.scandir(session)) == files:
        return True
    time.sleep(0.002)
    return False

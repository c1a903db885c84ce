"""nfs-watch from end to end: from `POST /v1/watch/start` until the last file is named `.completed`."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.bench.endpoint import Discard, stats
from tests.bench.measured import Measured, cpu_of, memory_of
from tests.bench.peers import RUNS, size
from tests.support.programs import Server, free_port

LIMIT = 240  # seconds that a run may take
Sample = tuple[float, int, int]
"""Seconds since the start, requests, resident bytes."""


def ours(
    folder: Path,
    scratch: Path,
    endpoint: Discard,
    *,
    md5: bool = True,
    staging: bool = False,
    sampled: Callable[[Sample], None] | None = None,
) -> Measured:
    """Upload a folder's files, which are linked into a session's folder and stay in their own."""
    root = scratch / "share"
    session = root / f"run-{next(RUNS)}"
    session.mkdir(parents=True)
    for entry in os.scandir(folder):
        os.link(entry.path, session / entry.name)
    files, content = size(folder)
    server = _shard(root, scratch, endpoint, md5=md5, staging=staging)
    try:
        server.up()
        with endpoint.client() as client:
            before = stats(client)
            cpu, started = cpu_of(server.pid), time.perf_counter()
            answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": session.name}, timeout=30)
            assert answer.status_code == 201, answer.text
            wall = _finished(session, files, content, client, before, server, started, sampled)
            used = cpu_of(server.pid) - cpu
            requests = stats(client)[0] - before[0]
        return Measured(wall, used, memory_of(server.pid), files, content, requests)
    finally:
        server.kill()
        shutil.rmtree(root)
        shutil.rmtree(scratch / "staging", ignore_errors=True)


def _finished(
    session: Path,
    files: int,
    content: int,
    client: httpx.Client,
    before: tuple[int, int],
    server: Server,
    started: float,
    sampled: Callable[[Sample], None] | None,
) -> float:
    """Watch the endpoint's counter, which is cheap; list the names only when all bytes have arrived."""
    while (now := time.perf_counter() - started) < LIMIT:
        assert server.process is not None
        assert server.process.poll() is None, server.log()[-3000:]
        requests, received = stats(client)
        assert '"file.failed"' not in server.log(), server.log()[-3000:]
        if sampled:
            sampled((now, requests - before[0], memory_of(server.pid, "VmRSS")))
        if received - before[1] >= content:
            done = sum(entry.name.endswith(".completed") for entry in os.scandir(session))
            if done == files:
                return time.perf_counter() - started
            time.sleep(0.002)
        else:
            time.sleep(0.01 if not sampled else 0.1)
    raise AssertionError(f"not finished after {LIMIT} s:\n{server.log()[-3000:]}")


def _shard(root: Path, scratch: Path, endpoint: Discard, *, md5: bool, staging: bool) -> Server:
    port = free_port()
    env = {
        "NFS_WATCH_ROOT": str(root),
        "NFS_WATCH_CONTAINER": "uploads",
        "AZURE_STORAGE_CONNECTION_STRING": endpoint.connection_string,
        "NFS_WATCH_HOST": "127.0.0.1",
        "NFS_WATCH_PORT": str(port),
        "NFS_WATCH_ORDINAL": "0",
        "NFS_WATCH_REPLICAS": "1",
        "NFS_WATCH_RETENTION": "86400",
        "NFS_WATCH_CONTENT_MD5": str(md5).lower(),
        **endpoint.trust,
    }
    if staging:
        (scratch / "staging").mkdir()
        env["NFS_WATCH_STAGING"] = str(scratch / "staging")
    (scratch / "ours.log").unlink(missing_ok=True)
    return Server([sys.executable, "-m", "uploader"], scratch / "ours.log", port, env)

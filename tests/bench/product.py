"""nfs-watch as a process of the benchmark, with its default settings unless a row says otherwise; and calls to it."""

import sys
from pathlib import Path
from typing import Any

import httpx

from tests.bench.endpoint import Discard
from tests.support.programs import Server, free_port


def product(root: Path, scratch: Path, endpoint: Discard, tree: Path | None = None, **settings: object) -> Server:
    """Make a shard on this root, not started. `tree`: another state of the project; settings without NFS_WATCH_."""
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
        "PYTHONDONTWRITEBYTECODE": "1",
        **endpoint.trust,
    }
    env |= {f"NFS_WATCH_{name.upper()}": str(value) for name, value in settings.items()}
    argv = [sys.executable, "-m", "uploader"]
    if tree:  # -P: the working folder, which is this project's, comes not first
        argv, env["PYTHONPATH"] = [sys.executable, "-P", "-m", "uploader"], str(tree)
    (scratch / "ours.log").unlink(missing_ok=True)
    return Server(argv, scratch / "ours.log", port, env)


def start(server: Server, session: str) -> None:
    """Start a session."""
    answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": session}, timeout=60, trust_env=False)
    assert answer.status_code == 201, answer.text


def status(client: httpx.Client, server: Server, session: str) -> dict[str, Any]:
    """Return a session's status."""
    answer = client.get(f"{server.url}/v1/watch/status", params={"session": session})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["sessions"][0]
    return found


def alive(server: Server) -> None:
    """Fail when the process has ended or a file has failed."""
    assert server.process is not None
    assert server.process.poll() is None, server.log()[-3000:]
    assert '"file.failed"' not in server.log(), server.log()[-3000:]

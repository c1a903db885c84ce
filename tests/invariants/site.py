"""One real shard, or several, before an endpoint in the test's process; many sessions at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.endpoint.server import Endpoint
from tests.support.blobs import ServiceStore
from tests.support.programs import CONTINUE, STOP, Server, shard, wait_for


class Site:
    """A share and its shards; each believes that it is number 0 (I9) unless told otherwise."""

    def __init__(self, folder: Path, stack: ExitStack, shards: int = 1, **settings: Any) -> None:
        self.root = folder / "share"
        self.root.mkdir()
        self.endpoint = stack.enter_context(Endpoint(ServiceStore()))
        given: dict[str, Any] = {"max_sessions": 100, "settle": 0.2, "settle_empty": 0.2, "scan_interval": 0.1}
        given |= {"retention": 0.2, "sweep_interval": 0.1, "block_size": 65536, "memory": 4 * 2**20} | settings
        self.shards = []
        for number in range(shards):
            (folder / f"{number}").mkdir()
            self.shards.append(shard(folder / f"{number}", self.root, self.endpoint.connection_string, **given))
            stack.callback(self.shards[-1].kill)

    def up(self) -> "Site":
        for one in self.shards:
            one.start()
        for one in self.shards:
            one.ready()
        return self

    def post(self, call: str, at: Server | None = None, **fields: Any) -> httpx.Response:
        return httpx.post(f"{(at or self.shards[0]).url}/v1/watch/{call}", json=fields, timeout=40, trust_env=False)

    def start(self, name: str, **fields: Any) -> Path:
        """Start a session and return its folder."""
        reply = self.post("start", session=name, **fields)
        assert reply.status_code == 201, reply.text
        return self.root / name

    def status(self, name: str, at: Server | None = None) -> dict[str, Any]:
        url = f"{(at or self.shards[0]).url}/v1/watch/status"
        listed = httpx.get(url, timeout=60, trust_env=False).json()["sessions"]
        return next((one for one in listed if one["session"] == name), {})

    def drained(self, name: str, timeout: float = 120) -> None:
        """Stop the session and wait until it has ended and is swept."""
        assert self.post("stop", session=name).status_code == 202
        record = self.root / ".nfs-watch/sessions" / f"{name}.json"
        wait_for(lambda: not record.exists(), f"{name} to be swept: {self.status(name)}", timeout)

    def blobs(self, name: str) -> dict[str, bytes]:
        """Return the blobs of a session by their path, without its receipts."""
        found = self.endpoint.store.blobs("uploads")
        blobs = {
            path.removeprefix(f"{name}/"): one.content for path, one in found.items() if path.startswith(f"{name}/")
        }
        return {path: content for path, content in blobs.items() if not path.startswith(".receipts/")}


def arrive(folder: Path, path: str, content: bytes) -> None:
    """Move a finished file into place."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name[:100]}")
    unfinished.write_bytes(content)
    unfinished.rename(target)


def files(folder: Path) -> list[str]:
    """Return every path below a folder that is no folder itself."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


@contextmanager
def still(server: Server) -> Iterator[None]:
    """Stop every thread of a program for a while, so that nothing it does happens in that time."""
    server.signal(STOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)
    try:
        yield
    finally:
        server.signal(CONTINUE)

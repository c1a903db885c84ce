"""A shard as a process, its share, and our endpoint as its store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.blobs import CONTAINER, ServiceStore
from tests.support.programs import Server, wait_for

MIB = 1024 * 1024


@dataclass
class Shard:
    """The process. Files arrive by rename, as producers are asked to do it."""

    endpoint: Endpoint
    server: Server
    root: Path

    def session(self, name: str = "run") -> Path:
        """Start a session and return its folder."""
        answer = httpx.post(self.server.url + "/v1/watch/start", json={"session": name}, timeout=60)
        assert answer.status_code == 201, answer.text
        return self.root / name

    def arrive(self, path: str, content: bytes | int) -> None:
        """Put a file there; a number makes a sparse file of so many bytes."""
        temporary = self.root / f"arriving-{path.replace('/', '-')}"
        with temporary.open("wb") as file:
            if isinstance(content, int):
                file.truncate(content)
            else:
                file.write(content)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(target)

    def stored(self, *names: str, timeout: float = 200) -> None:
        """Wait until these blobs are committed."""
        wait_for(lambda: self.blobs().issuperset(names), f"{names} in the store", timeout, 0.01)

    def blobs(self) -> set[str]:
        """Return the names of all committed blobs."""
        return set(self.endpoint.store.blobs(CONTAINER))

    def content(self, name: str) -> bytes:
        """Return a blob's bytes."""
        return self.endpoint.store.blob(CONTAINER, name).content

    def files(self, session: str) -> dict[str, int]:
        """Return what status counts of a session's files."""
        url = f"{self.server.url}/v1/watch/status?session={session}"
        found: dict[str, int] = httpx.get(url, timeout=60, trust_env=False).json()["sessions"][0]["files"]
        return found

    def received(self) -> int:
        """Return the bytes of content that the store has received so far."""
        log = self.endpoint.log
        return log.received(Operation.PUT_BLOCK) + log.received(Operation.PUT_BLOB)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [orjson.loads(line) for line in self.server.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def peak(self) -> int:
        """Return the process's peak memory in bytes."""
        text = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) * 1024

    def left(self, name: str = "run") -> list[str]:
        """Return the paths of the files in a session's folder."""
        folder = self.root / name
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextmanager
def shard(folder: Path, *, keep_bytes: bool = True, up: bool = True, **settings: Any) -> Iterator[Shard]:
    """Give a shard and its endpoint; the process is started unless `up` is False."""
    root = folder / "share"
    root.mkdir(exist_ok=True)
    with Endpoint(ServiceStore(keep_bytes=keep_bytes)) as endpoint:
        endpoint.store.create(CONTAINER)
        server = programs.shard(folder, root, endpoint.connection_string, **settings)
        try:
            if up:
                server.up()
            yield Shard(endpoint, server, root)
        finally:
            server.kill()


def noise(size: int) -> bytes:
    """Return content in which no two blocks are equal."""
    return os.urandom(size)

"""Stand-ins for many shards: one listener that answers status and start for every ordinal, as shards do."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import orjson


class Shards:
    """Full shards; `asked` holds requests as (method, ordinal). Shard k is at `url` with k for `{ordinal}`."""

    def __init__(self, count: int, uploading: int) -> None:
        """Let each shard run one session with this many files in flight."""
        self.count = count
        self.uploading = uploading
        self.asked: list[tuple[str, int]] = []
        self.url = ""

    def answer(self, head: bytes) -> bytes:
        """Return the complete answer to a request."""
        method, path, _ = head.decode().split(" ", 2)
        ordinal = int(path.split("/")[1])
        self.asked.append((method, ordinal))
        if method == "GET":
            return _response(b"200 OK", self._status(ordinal))
        full = {"title": "full", "status": 409, "code": "shard-full", "sessions": [f"run-{ordinal}"]}
        return _response(b"409 Conflict", full)

    def _status(self, ordinal: int) -> dict[str, object]:
        file = {"size": 8_000_000, "uploaded": 4_000_000, "attempts": 1, "error": None}
        current = [{"path": f"camera-3/2026-02-15/frame-{number:08}.bin", **file} for number in range(self.uploading)]
        session = {
            "session": f"run-{ordinal}",
            "state": "active",
            "shard": ordinal,
            "started_at": "2026-02-15T00:00:00.000Z",
            "files": {"waiting": 1000, "uploading": self.uploading, "completed": 5000, "failed": 0, "replaced": 0},
            "bytes": {"uploaded": 40_000_000_000, "total": 48_000_000_000 + len(self.asked)},
            "rate_bytes_per_s": 100_000_000,
            "eta_s": 80,
            "current": current,
            "last_error": None,
        }
        return {"sessions": [session], "shards": []}


class _Connection(asyncio.Protocol):
    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith((b"\r\n\r\n", b"}")):  # a head alone, or with its JSON
            self.transport.write(self.shards.answer(self.received))
            self.transport.close()


def _response(status: bytes, body: dict[str, object]) -> bytes:
    content = orjson.dumps(body)
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(content)) + content


@contextlib.contextmanager
def standing_in(count: int, uploading: int = 4) -> Iterator[Shards]:
    """Answer on a thread until the end of the context."""
    shards = Shards(count, uploading)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Connection(shards), "127.0.0.1", 0, backlog=2048))
    shards.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{{ordinal}}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield shards
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

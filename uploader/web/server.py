"""Runs uvicorn for both programs."""

import asyncio
import errno
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from uploader import thread
from uploader.errors import BadConfiguration
from uploader.web.places import Limits

KEEP_ALIVE = 30  # seconds between two requests of one connection
HEAD_TIME = 40.0  # seconds for a request's head, which uvicorn does not limit; a waiting connection ends before that


class Connection(H11Protocol):
    """A client's connection. Beyond `most` of them the one is closed that has had no request for the longest time."""

    most = 2500
    waiting: dict["Connection", None] = {}  # noqa: RUF012 those without a request, by since when; of the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, and make room for it."""
        super().connection_made(transport)
        self.waiting[self] = None
        if len(self.connections) > self.most:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            oldest.transport.close()

    def data_received(self, data: bytes) -> None:
        """Note the beginning of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """Note the end of a request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.waiting.pop(self, None)
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """Ends at once on a signal (A18, A25): every call is idempotent, so nothing has to be saved."""

    _idle: dict[Any, tuple[Any, float]] = {}  # noqa: RUF012 replaced, never changed

    async def on_tick(self, counter: int) -> bool:
        """Close idle connections once a second; uvicorn calls this every 0.1 s."""
        if counter % 10 == 0:
            self._close_idle()
        return await super().on_tick(counter)

    def _close_idle(self) -> None:
        """Close connections that have had no request to answer for HEAD_TIME seconds, whatever bytes they send."""
        now = time.monotonic()
        connections: set[Any] = self.server_state.connections
        idle = [one for one in connections if one.cycle is None or one.cycle.response_complete]
        known = {one: self._idle.get(one, (one.cycle, now)) for one in idle}
        self._idle = {
            one: (cycle, since) if cycle is one.cycle else (one.cycle, now) for one, (cycle, since) in known.items()
        }
        for one, (_, since) in self._idle.items():
            if now - since > HEAD_TIME:
                one.transport.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 uvicorn's signature
        """End with the exit code that shells give for the signal: 128 + `sig`."""
        thread.end(128 + sig)


def listener(host: str, port: int) -> socket.socket:
    """Return the listening socket. Raises BadConfiguration, naming the variable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        of_port = error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EPERM}
        variable = f"NFS_WATCH_PORT={port}" if of_port else f"NFS_WATCH_HOST={host}"
        raise BadConfiguration(f"{variable}: cannot listen there: {error.strerror}") from error


def run(app: Any, at: socket.socket, limits: Limits) -> None:  # noqa: ANN401 any ASGI application
    """Serve until the process is killed. Slow or idle clients cost a connection, no thread."""
    Connection.most = limits.connections
    config = uvicorn.Config(
        app,
        http=Connection,
        backlog=limits.backlog,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
    )
    Server(config).run(sockets=[at])

"""The status as server-sent events: one poller and one serialization for all clients.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from uploader.telemetry import names
from uploader.web.openapi.models import Status, encoded
from uploader.web.places import Places

log = logging.getLogger(__name__)
RETRY = 1000  # milliseconds after which a browser connects again
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must not hold events back
HEARTBEAT = b": still here\n\n"
Parts = dict[tuple[Any, ...], bytes]
SENDS = 500  # events to clients a second: with many of them each gets fewer, and the uploads keep their time


class Events:
    """Sends what `snapshot` returns, a Status, whenever that has changed.

    `snapshot` is called every `interval` seconds, and only while a client is connected. Each event is the full
    state: a client that connects again gets the present state at once, whatever its Last-Event-ID, and a slow
    client skips events, because none is queued. `heartbeat`: seconds without events until a comment is sent.
    """

    def __init__(
        self,
        snapshot: Callable[[], Awaitable[object]],
        interval: float = 0.25,
        heartbeat: float = 15,
        places: Places | None = None,
    ) -> None:
        self.places = places or Places()
        self._snapshot = snapshot
        self._interval = interval
        self._heartbeat = heartbeat
        self._clients = 0
        self._poller: asyncio.Task[None] | None = None
        self._number = 0
        self._event = b""
        self._state = b""
        self._differing = 0  # clients that want changes only
        self._parts: Parts = {}
        self._change = b""  # from the state before to this one; empty where only the whole state tells it
        self._changed = asyncio.Event()

    def response(self, request: Request, *, changes: bool = False) -> Response:
        """Answer GET with the stream, HEAD with its headers. Raises TooManyClients.

        `changes`: after the first state the client gets what has changed, as an event of this name.
        """
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=HEADERS)
        self.places.check()
        return _Stream(self.places, self._stream(changes=changes), media_type="text/event-stream", headers=HEADERS)

    async def _stream(self, *, changes: bool = False) -> AsyncGenerator[bytes, None]:
        self._enter()
        self._differing += changes
        try:
            yield b"retry: %d\n\n" % RETRY
            sent = 0
            while True:
                if self._event and sent != self._number:
                    missed, sent = self._number - sent - 1, self._number
                    yield self._change if changes and self._change and not missed else self._event
                elif not await self._changes():
                    yield HEARTBEAT
        finally:
            self._differing -= changes
            self._leave()

    async def _changes(self) -> bool:
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _enter(self) -> None:
        self._clients += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())

    def _leave(self) -> None:
        self._clients -= 1
        if not self._clients and self._poller:
            self._poller.cancel()
            self._poller = None
            self._event = self._state = self._change = b""  # the next client must not get an old state
            self._parts = {}

    async def _poll(self) -> None:
        failing = False
        while True:
            try:
                self._publish(await self._snapshot())
                failing = False
            except Exception as error:  # noqa: BLE001 the one broad catch of this task: the next look may succeed
                if not failing:  # one line, not four a second
                    log.warning(names.SNAPSHOT_FAILED, extra={"error": f"{type(error).__name__}: {error}"})
                failing = True
            await asyncio.sleep(max(self._interval, self._clients / SENDS))

    def _publish(self, status: object) -> None:
        state = encoded(status)
        if state == self._state:
            return
        self._state = state
        self._number += 1
        self._event = b"id: %d\ndata: %b\n\n" % (self._number, state)
        before, self._parts = self._parts, parts(status) if self._differing and isinstance(status, Status) else {}
        change = difference(before, self._parts)
        self._change = b"id: %d\nevent: changes\ndata: %b\n\n" % (self._number, change) if change else b""
        self._changed.set()  # wakes all that wait
        self._changed = asyncio.Event()


def parts(status: Status) -> Parts:
    """Return the sessions and shards of a status, each as JSON, and the error as one more."""
    sessions = {("sessions", *_key(one)): encoded(one) for one in status.sessions}
    shards = {("shards", shard.shard): encoded(shard) for shard in status.shards}
    return {**sessions, **shards, ("error",): encoded(getattr(status, "error", None))}


def difference(before: Parts, now: Parts) -> bytes:
    """Return what has changed, as JSON; empty where that is not told so: no state before, shards gone, an error."""
    gone = before.keys() - now.keys()
    if not before or before[("error",)] != now.get(("error",)) or any(key[0] == "shards" for key in gone):
        return b""
    new = [key for key, part in now.items() if before.get(key) != part]
    told: dict[str, Any] = {
        kind: [orjson.Fragment(now[key]) for key in new if key[0] == kind] for kind in ("sessions", "shards")
    }
    return orjson.dumps(told | {"gone": [{"session": key[1], "shard": key[2]} for key in gone]})


def _key(session: Any) -> tuple[str, int]:  # noqa: ANN401 a dataclass, or what a shard has answered
    if isinstance(session, dict):
        return session["session"], session.get("shard", 0)
    return session.session, session.shard


class _Stream(StreamingResponse):
    """Holds a place; ends its iterator as soon as the client is gone, not at the next garbage collection."""

    def __init__(self, places: Places, content: AsyncGenerator[bytes, None], **options: Any) -> None:  # noqa: ANN401 as StreamingResponse
        super().__init__(content, **options)
        self._places = places
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._places.taking():
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._content):
            await super().stream_response(send)

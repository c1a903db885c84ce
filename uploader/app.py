"""A shard's HTTP interface. Handlers parse, call the service in a thread, and answer; none calls the share itself."""

import asyncio
from contextlib import nullcontext

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from uploader.errors import BadRequest
from uploader.sessions.service import Service
from uploader.web.application import application
from uploader.web.events import Events
from uploader.web.foreign import names_of
from uploader.web.openapi.models import (
    FilesQuery,
    PageQuery,
    RetryRequest,
    SessionState,
    StartRequest,
    Status,
    StatusQuery,
    StopRequest,
)
from uploader.web.places import Places
from uploader.web.wire import answer, query, read

LOOK = 0.25  # seconds between two looks at a session for whose end somebody waits


class Api:
    """The handlers."""

    def __init__(self, service: Service, places: Places) -> None:
        self._service = service
        self._places = places
        self.events = Events(self._snapshot, places=places)

    async def start(self, request: Request) -> Response:
        """POST /v1/watch/start."""
        wanted = await read(request, StartRequest)
        service = self._service
        return answer(await run_in_threadpool(service.start, wanted.session, wanted.extensions, wanted.shard), 201)

    async def stop(self, request: Request) -> Response:
        """POST /v1/watch/stop."""
        wanted = await read(request, StopRequest)
        ended = await run_in_threadpool(self._service.stop, wanted.session, drain=wanted.drain)
        return answer(ended, 202 if ended.state is SessionState.DRAINING else 200)

    async def retry(self, request: Request) -> Response:
        """POST /v1/watch/retry."""
        wanted = await read(request, RetryRequest)
        return answer(await run_in_threadpool(self._service.retry, wanted.session, wanted.path), 202)

    async def status(self, request: Request) -> Response:
        """GET /v1/watch/status."""
        asked = query(request, StatusQuery)
        if asked.wait and asked.session is None:
            raise BadRequest("wait: it needs a session to wait for")
        with self._places.taking() if asked.wait else nullcontext():
            return await self._told(asked.session, asked.wait)

    async def _told(self, session: str | None, wait: int) -> Response:
        end = asyncio.get_running_loop().time() + wait
        while True:
            found = self._service.status_now(session)
            if found is None and session:  # only what is not in memory is looked for on the share, in a thread
                found = await run_in_threadpool(self._service.status, session)
            left = end - asyncio.get_running_loop().time()
            if left <= 0 or not found or found.sessions[0].state is SessionState.ENDED:
                return answer(found)
            await asyncio.sleep(min(LOOK, left))

    async def files(self, request: Request) -> Response:
        """GET /v1/watch/files."""
        asked = query(request, FilesQuery)
        return answer(await run_in_threadpool(self._service.files, asked.session, asked))

    async def results(self, request: Request) -> Response:
        """GET /v1/watch/results."""
        asked = query(request, PageQuery)
        return answer(await run_in_threadpool(self._service.ended, asked.limit, asked.after))

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: the records were read, the share answers, and the store has answered once.

        An outage of the store later on is told, and leaves the shard ready: it takes starts and stops meanwhile.
        """
        age = self._service.share.age()
        if not self._service.reconciled or age > self._service.settings.nfs_timeout:
            return PlainTextResponse(f"not ready: the share answered {age:.0f} s ago\n", 503)
        store, waits_for = self._service.store, self._service.waits_for()
        if store and not store.answered:
            return PlainTextResponse(f"not ready: {waits_for}\n", 503)
        return PlainTextResponse(f"ready, but {waits_for}\n" if waits_for else "ready\n")

    async def _snapshot(self) -> Status | None:
        return self._service.status_now()


def app(service: Service, places: Places | None = None) -> Starlette:
    """Return the application; `places`: for requests that last."""
    api = Api(service, places or Places())
    own = {
        "start": api.start,
        "stop": api.stop,
        "retry": api.retry,
        "status": api.status,
        "files": api.files,
        "results": api.results,
        "readyz": api.readyz,
    }
    return application(own, api.events, names_of(service.settings), router=False)

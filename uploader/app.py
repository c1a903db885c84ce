"""A shard's HTTP interface. Handlers parse, call the service in a thread, and answer; none calls the share itself."""

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from uploader.session import State
from uploader.sessions.service import Service
from uploader.web.application import application
from uploader.web.events import Events
from uploader.web.foreign import names_of
from uploader.web.openapi.models import StartRequest, Status, StopRequest
from uploader.web.wire import answer, read, session_of


class Api:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.events = Events(self._snapshot)

    async def start(self, request: Request) -> Response:
        """POST /v1/watch/start."""
        wanted = await read(request, StartRequest)
        service = self._service
        return answer(await run_in_threadpool(service.start, wanted.session, wanted.extensions, wanted.shard), 201)

    async def stop(self, request: Request) -> Response:
        """POST /v1/watch/stop."""
        wanted = await read(request, StopRequest)
        ended = await run_in_threadpool(self._service.stop, wanted.session, drain=wanted.drain)
        return answer(ended, 200 if ended.state is State.STOPPED else 202)

    async def status(self, request: Request) -> Response:
        """GET /v1/watch/status."""
        return answer(await run_in_threadpool(self._service.status, session_of(request)))

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: the records were read and the share answers."""
        age = self._service.share.age()
        if not self._service.reconciled or age > self._service.settings.nfs_timeout:
            return PlainTextResponse(f"not ready: the share answered {age:.0f} s ago\n", 503)
        return PlainTextResponse("ready\n")

    async def _snapshot(self) -> Status:
        return self._service.status()


def app(service: Service) -> Starlette:
    """Return the application."""
    api = Api(service)
    own = {"start": api.start, "stop": api.stop, "status": api.status, "readyz": api.readyz}
    return application(own, api.events, names_of(service.settings), router=False)

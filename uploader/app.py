"""A shard's HTTP interface. Handlers parse, call the service in a thread, answer; none touches the share itself."""

from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from uploader.errors import BadRequest, Refused
from uploader.session import check_name
from uploader.sessions.service import Service
from uploader.web.events import Events
from uploader.web.openapi.document import document
from uploader.web.wire import StartRequest, StopRequest, answer, failed, http_error, read, refused


class Api:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._events = Events(self._snapshot)
        self._contract = answer(document(StartRequest, StopRequest, page=False))

    async def start(self, request: Request) -> Response:
        """POST /v1/watch/start."""
        wanted = await read(request, StartRequest)
        service = self._service
        return answer(await run_in_threadpool(service.start, wanted.session, wanted.extensions, wanted.shard), 201)

    async def stop(self, request: Request) -> Response:
        """POST /v1/watch/stop."""
        wanted = await read(request, StopRequest)
        content, ended = await run_in_threadpool(self._service.stop, wanted.session, drain=wanted.drain)
        return answer(content, 200 if ended else 202)

    async def status(self, request: Request) -> Response:
        """GET /v1/watch/status."""
        name = request.query_params.get("session")
        if name is not None:
            try:
                check_name(name)
            except ValueError as error:
                raise BadRequest(str(error)) from error
        return answer(await run_in_threadpool(self._service.status, name))

    async def events(self, request: Request) -> Response:
        """GET /v1/watch/events."""
        return self._events.response(request)

    async def openapi(self, _: Request) -> Response:
        """GET /openapi.json."""
        return self._contract

    async def livez(self, _: Request) -> Response:
        """GET /livez: from memory; a share that hangs ends the process by itself."""
        return PlainTextResponse("alive\n")

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: the records were read and the share answers."""
        age = self._service.share.age()
        if not self._service.reconciled or age > self._service.settings.nfs_timeout:
            return PlainTextResponse(f"not ready: the share answered {age:.0f} s ago\n", 503)
        return PlainTextResponse("ready\n")

    async def _snapshot(self) -> dict[str, Any]:
        return self._service.status()


def app(service: Service) -> Starlette:
    """Return the application."""
    api = Api(service)
    return Starlette(
        routes=[
            Route("/v1/watch/start", api.start, methods=["POST"]),
            Route("/v1/watch/stop", api.stop, methods=["POST"]),
            Route("/v1/watch/status", api.status, methods=["GET"]),
            Route("/v1/watch/events", api.events, methods=["GET"]),
            Route("/openapi.json", api.openapi, methods=["GET"]),
            Route("/livez", api.livez, methods=["GET"]),
            Route("/readyz", api.readyz, methods=["GET"]),
        ],
        exception_handlers={Refused: refused, HTTPException: http_error, Exception: failed},
    )

"""The HTTP application of both programs: the contract's calls by operationId, and the calls that are alike in both."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from uploader.errors import Refused
from uploader.web.events import Events
from uploader.web.foreign import Guard, Names
from uploader.web.openapi.document import document
from uploader.web.openapi.models import EventsQuery
from uploader.web.wire import answer, failed, http_error, query, refused

Call = Callable[[Request], Awaitable[Response]]


def application(
    own: Mapping[str, Call],
    events: Events,
    names: Names,
    *,
    router: bool,
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Return the application of a shard or of the router; `own`: its handlers by operationId; `names`: its own."""
    contract = document(router=router)
    text = answer(contract)

    async def stream(request: Request) -> Response:
        return events.response(request, changes=query(request, EventsQuery).changes)

    async def openapi(_: Request) -> Response:
        return text

    calls = {"events": stream, "contract": openapi, "livez": livez, **own}
    return Starlette(
        routes=[
            Route(path, calls[operation["operationId"]], methods=[method.upper()])
            for path, operations in contract["paths"].items()
            for method, operation in operations.items()
        ],
        middleware=[Middleware(Guard, names)],
        exception_handlers={Refused: refused, HTTPException: http_error, Exception: failed},
        lifespan=lifespan,
    )


async def livez(_: Request) -> Response:
    """GET /livez: any answer shows that the process lives. The watchdog ends a process whose share hangs."""
    return PlainTextResponse("alive\n")

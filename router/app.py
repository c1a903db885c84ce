"""The router's HTTP interface. The router holds nothing but what it last saw, so that a restart loses no session."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from router import page
from router.forward import Forward
from router.gather import Gather
from router.rates import STEP, Rates
from router.settings import Settings
from router.shard import Reply, Shards, client
from uploader.cluster.replicas import Replicas, ReplicasUnknown
from uploader.errors import BadRequest, NotReady
from uploader.session import new_name
from uploader.telemetry import instruments, names
from uploader.web.application import application
from uploader.web.events import Events
from uploader.web.foreign import names_of
from uploader.web.openapi.models import (
    FilesQuery,
    PageQuery,
    Query,
    RetryRequest,
    StartRequest,
    Status,
    StatusQuery,
    StopRequest,
)
from uploader.web.places import Places
from uploader.web.wire import answer, no_query, problem, query, read

log = logging.getLogger(__name__)
POLL = 0.5  # seconds between two questions to the shards while a client watches


class Router:
    """The handlers: parse, ask the shards, answer."""

    def __init__(self, settings: Settings, replicas: Replicas, places: Places) -> None:
        self._places = places
        self._replicas = replicas
        self._client = client()
        shards = Shards(self._client, settings.shard_url)
        self._forward = Forward(shards)
        self._gather = Gather(shards)
        self._rates = Rates()
        self.events = Events(self._latest, interval=POLL, places=places)

    async def start(self, request: Request) -> Response:
        """POST /v1/watch/start."""
        wanted = await read(request, StartRequest)
        n = await self._at_least_one()
        name = wanted.session or new_name()
        fields = {} if wanted.extensions is None else {"extensions": wanted.extensions}
        if wanted.shard is not None:
            return _passed(await self._forward.start_on(wanted.shard, name, fields, n))
        return _passed(await self._forward.start(name, fields, made=wanted.session is None, n=n))

    async def stop(self, request: Request) -> Response:
        """POST /v1/watch/stop."""
        wanted = await read(request, StopRequest)
        return _passed(await self._forward.stop(wanted.session, wanted.model_dump(), await self._at_least_one()))

    async def retry(self, request: Request) -> Response:
        """POST /v1/watch/retry."""
        wanted = await read(request, RetryRequest)
        fields = wanted.model_dump(exclude_unset=True)
        return _passed(await self._forward.retry(wanted.session, fields, await self._at_least_one()))

    async def status(self, request: Request) -> Response:
        """GET /v1/watch/status."""
        asked = query(request, StatusQuery)
        if asked.session is None and asked.wait:
            raise BadRequest("wait: it needs a session to wait for")
        if asked.session is None:
            return answer(await self._gather.now(await self._count()))
        with self._places.taking() if asked.wait else nullcontext():
            return _passed(await self._forward.status(asked.session, await self._at_least_one(), asked.wait))

    async def files(self, request: Request) -> Response:
        """GET /v1/watch/files."""
        asked = query(request, FilesQuery)
        return _passed(await self._forward.files(asked.session, _given(asked), await self._at_least_one()))

    async def results(self, request: Request) -> Response:
        """GET /v1/watch/results."""
        return _passed(await self._forward.results(_given(query(request, PageQuery)), await self._at_least_one()))

    async def rates(self, request: Request) -> Response:
        """GET /v1/watch/rates."""
        no_query(request)
        return answer(self._rates.told())

    async def look(self) -> None:
        """Ask the shards every STEP seconds: rates, and what a shard last knew, are there before anybody asks."""
        told = ""
        while True:
            try:
                seen = await self._gather.latest(await self._count())
                self._rates.note(seen.sessions)  # type: ignore[arg-type]
                self._rates.shards = len(seen.shards), sum(shard.reachable for shard in seen.shards)
                told = ""
            except NotReady as error:
                log.debug("the number of shards is not known: %s", error)
            except Exception as error:  # noqa: BLE001 the one broad catch of this task: the next look may succeed
                text = f"{type(error).__name__}: {error}"
                if text != told:
                    log.warning(names.SNAPSHOT_FAILED, extra={"error": text})
                told = text
            await asyncio.sleep(STEP)

    def gauges(self) -> dict[str, float]:
        """Return the gauges' values by metric name, from memory."""
        known = self._rates.shards
        return dict(zip(instruments.ROUTERS, known, strict=True)) if known else {}

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: ready once the number of shards is known, even when no shard answers."""
        try:
            count = await self._count()
        except NotReady as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse(f"ready: {count} shards\n")

    async def _latest(self) -> Status:
        try:
            return await self._gather.latest(await self._count())
        except NotReady as error:
            return Status(sessions=[], shards=[], error=str(error))

    async def _count(self) -> int:
        try:
            return await run_in_threadpool(self._replicas.count)
        except ReplicasUnknown as error:
            raise NotReady(str(error)) from error

    async def _at_least_one(self) -> int:
        n = await self._count()
        if n == 0:
            raise NotReady("there are no shards: the StatefulSet is scaled to 0")
        return n

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def app(settings: Settings, replicas: Replicas, places: Places | None = None) -> Starlette:
    """Return the application; `places`: for requests that last."""
    router = Router(settings, replicas, places or Places())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        instruments.gauges(instruments.ROUTERS, router.gauges)
        looking = asyncio.create_task(router.look())
        yield
        looking.cancel()
        await router.close()

    own = {
        "page": page.respond,
        "start": router.start,
        "stop": router.stop,
        "retry": router.retry,
        "status": router.status,
        "files": router.files,
        "results": router.results,
        "rates": router.rates,
        "readyz": router.readyz,
    }
    return application(own, router.events, names_of(settings), router=True, lifespan=lifespan)


def _given(asked: Query) -> dict[str, str]:
    return {name: str(value) for name, value in asked.model_dump(exclude_unset=True).items()}


def _passed(reply: Reply) -> Response:
    """Pass a shard's answer on; its errors stay problem documents."""
    if reply.status < 400:
        return answer(reply.body, reply.status)
    fields = {key: value for key, value in reply.body.items() if key not in {"title", "status", "code", "detail"}}
    return problem(reply.status, reply.code, str(reply.body.get("detail", "")), **fields)

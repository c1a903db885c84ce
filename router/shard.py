"""Asks one shard over HTTP: its answer, or an error that says why there is none."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import orjson

from uploader.errors import BadShard

START, STOP, STATUS = "/v1/watch/start", "/v1/watch/stop", "/v1/watch/status"
RETRY = "/v1/watch/retry"
FILES, RESULTS = "/v1/watch/files", "/v1/watch/results"
CONNECT = 1.0  # seconds: a living pod accepts within milliseconds
PATIENCE = 10.0  # seconds for a whole answer: a start fsyncs a record over NFS
ANSWER_LIMIT = 8 * 1024 * 1024  # bytes: a status with a thousand files in flight is below 1 MiB
_CONTRACT = frozenset({200, 201, 202, 400, 404, 409, 413, 421})


class ShardAway(Exception):
    """The shard cannot serve the request now. `unsure`: it may have served it, and only the answer is missing."""

    def __init__(self, reason: str, *, unsure: bool = False) -> None:
        super().__init__(reason)
        self.unsure = unsure


@dataclass(frozen=True)
class Reply:
    """What a shard answered: one of the contract's statuses and a JSON object."""

    shard: int
    status: int
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """The problem's code, "" when there is none."""
        return str(self.body.get("code", ""))


def client() -> httpx.AsyncClient:
    """Return a client for shards.

    No proxies: those of the environment are for Azure. Each request makes its own connection: a kept connection
    may lead to a pod that is gone, and a start that fails there would be offered to a shard that is not its owner.
    """
    return httpx.AsyncClient(
        trust_env=False,
        timeout=httpx.Timeout(None, connect=CONNECT),  # each call has a patience of its own
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        headers={"Accept-Encoding": "identity", "Connection": "close"},
    )


class Shards:
    """All shards; `url` holds `{ordinal}`."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def post(self, ordinal: int, path: str, fields: dict[str, Any], patience: float = PATIENCE) -> Reply:
        """Send a JSON object; `patience`: seconds for the whole answer. Raises ShardAway, BadShard."""
        return await self._ask(ordinal, patience, "POST", path, json=fields)

    async def get(
        self, ordinal: int, path: str, patience: float = PATIENCE, query: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask for a JSON object; `patience`: seconds for the whole answer. Raises ShardAway, BadShard."""
        return await self._ask(ordinal, patience, "GET", path, params=query or {})

    async def _ask(self, ordinal: int, patience: float, method: str, path: str, **what: Any) -> Reply:  # noqa: ANN401
        url = self._url.format(ordinal=ordinal) + path
        try:
            async with asyncio.timeout(patience), self._http.stream(method, url, **what) as response:
                return _reply(ordinal, response.status_code, await _body(ordinal, response))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ShardAway(_reason(ordinal, error)) from error
        except (httpx.TransportError, TimeoutError) as error:
            raise ShardAway(_reason(ordinal, error), unsure=True) from error
        except httpx.DecodingError as error:
            raise BadShard(f"shard {ordinal} sent an answer that cannot be decoded", shard=ordinal) from error


def _reason(ordinal: int, error: Exception) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"shard {ordinal} does not answer in time"
    root: BaseException = error
    while root.__cause__ or root.__context__:  # the socket's own error says most
        root = root.__cause__ or root.__context__ or root
    return f"shard {ordinal} is not reachable: {_words(root)}"


def _words(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its address"
    if isinstance(error, socket.gaierror):
        return "its name is not known; is there such a pod?"
    return str(error) or type(error).__name__


async def _body(ordinal: int, response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_LIMIT:
            raise BadShard(f"shard {ordinal} answered more than {ANSWER_LIMIT} bytes", shard=ordinal)
    return bytes(body)


def _reply(ordinal: int, status: int, body: bytes) -> Reply:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    detail = str(fields.get("detail", "")) if isinstance(fields, dict) else ""
    if status == 503:
        raise ShardAway(f"shard {ordinal} is not ready{': ' if detail else ''}{detail}")
    if status not in _CONTRACT:
        said = f", saying {detail!r}" if detail else ""
        raise BadShard(f"shard {ordinal} answered {status}{said}; its log says more", shard=ordinal)
    if not isinstance(fields, dict):
        raise BadShard(f"shard {ordinal} answered {status} with a body that is no JSON object", shard=ordinal)
    if status >= HTTPStatus.BAD_REQUEST and not isinstance(fields.get("code"), str):
        raise BadShard(f"shard {ordinal} answered {status} without a code", shard=ordinal)
    return Reply(ordinal, status, fields)

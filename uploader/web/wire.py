"""Reads and checks requests and writes answers, for both programs; errors are problem documents (RFC 9457)."""

import asyncio
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from uploader.errors import BadRequest, Refused, TooLarge, Unexpected, sentence
from uploader.web.openapi.models import Body, Query, encoded

BODY_LIMIT = 64 * 1024  # bytes; a request of every allowed field at its longest is far below
BODY_TIME = 10.0  # seconds for a whole body
RETRY_AFTER = 5  # seconds, for 503

B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


async def read(request: Request, model: type[B]) -> B:
    """Read and check a request's body. Raises BadRequest or TooLarge, saying what is allowed."""
    no_query(request)
    try:
        async with asyncio.timeout(BODY_TIME):
            body = await _body(request)
    except TimeoutError:
        raise BadRequest(f"the body did not come within {BODY_TIME:.0f} s") from None
    try:
        fields = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadRequest("the body has to be a JSON object")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise BadRequest(_objection(error, model)) from error


def query(request: Request, model: type[Q]) -> Q:
    """Read and check the parameters of a GET. Raises BadRequest, saying what is allowed."""
    given = request.query_params.multi_items()
    fields = dict(given)
    if len(fields) < len(given):
        raise BadRequest("a parameter is there twice")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise BadRequest(_objection(error, model, "query parameter")) from error


def no_query(request: Request) -> None:
    """Raise BadRequest when a call that knows no parameters has one."""
    query(request, Query)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise TooLarge(f"the body is larger than {BODY_LIMIT} bytes")
    return body


def _objection(error: ValidationError, model: type[BaseModel], kind: str = "field") -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown {kind} {field!r}; allowed are {', '.join(model.model_fields) or 'none'}"
    return sentence(first, field)


def answer(content: object, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(encoded(content), status, media_type="application/json")


def problem(status: int, code: str, detail: str, **extra: Any) -> Response:  # noqa: ANN401 any JSON
    """Return an error as a problem document (RFC 9457); 503 carries Retry-After in seconds."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail, **extra}
    headers = {"Retry-After": str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


async def refused(_: Request, error: Exception) -> Response:
    """Answer a Refused; handed to starlette as an exception handler."""
    assert isinstance(error, Refused)  # noqa: S101 starlette hands over only what was registered
    return problem(error.status, error.code, error.detail, **error.extra)


async def http_error(_: Request, error: Exception) -> Response:
    """Answer starlette's own errors (unknown path, wrong method) as problems too."""
    status = getattr(error, "status_code", 500)
    detail = getattr(error, "detail", "") or HTTPStatus(status).phrase
    response = problem(status, HTTPStatus(status).phrase.lower().replace(" ", "-"), detail)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def failed(request: Request, error: Exception) -> Response:
    """Answer an unexpected exception with 500 and its type, never its message."""
    return await refused(request, Unexpected(f"{type(error).__name__}; the log says more"))

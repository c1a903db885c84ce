"""The contract, OpenAPI 3.1, for both programs: what they take, what they answer, which errors there are."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from uploader.session import EXTENSION_RULE, NAME_RULE
from uploader.web.openapi.examples import ABOUT, PROBLEMS, STARTED, STATUS, TITLES
from uploader.web.openapi.models import Ended, Problem, Started, Status

# The rule of session.NAME in words that need no look-around: a dot is always followed by something else.
NAME_PATTERN = r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*$"
EXTENSION_PATTERN = r"^\.[^/\u0000-\u001f\u007f]{1,63}$"
TEMPLATE = "#/components/schemas/{model}"


def document(start: type[BaseModel], stop: type[BaseModel], *, page: bool) -> dict[str, Any]:
    """Return the contract. `start` and `stop` are the bodies' models; `page`: this is the router."""
    paths = {
        "/v1/watch/start": {"post": _start(start.__name__, router=page)},
        "/v1/watch/stop": {"post": _stop(stop.__name__, router=page)},
        "/v1/watch/status": {"get": _status(router=page)},
        "/v1/watch/events": {"get": _events()},
        "/livez": {"get": _probe("Does the process live?", "livez")},
        "/readyz": {"get": _probe("Can it serve? The share is not asked.", "readyz", ready=True)},
        "/openapi.json": {"get": _got("This document", "contract", "application/json", {"type": "object"})},
    }
    if page:
        paths["/"] = {"get": _got("The status page", "page", "text/html", {"type": "string"})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nfs-watch",
            "version": "1",
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _schemas(start, stop, Started, Ended, Status, Problem)},
    }


def _schemas(*models: type[BaseModel]) -> dict[str, Any]:
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=TEMPLATE)
    return {name: _ruled(schema) for name, schema in schemas["$defs"].items()}


def _ruled(schema: Any) -> Any:  # noqa: ANN401 any JSON
    """Add the patterns, which pydantic does not see in a validator."""
    if isinstance(schema, list):
        return [_ruled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    ruled = {key: _ruled(value) for key, value in schema.items()}
    if schema.get("description") == NAME_RULE:
        ruled |= {"pattern": NAME_PATTERN, "minLength": 1, "maxLength": 128}
    if schema.get("description") == EXTENSION_RULE:
        ruled["items"] = {"type": "string", "pattern": EXTENSION_PATTERN}
    return ruled


def _start(model: str, *, router: bool) -> dict[str, Any]:
    examples = {
        "named": {"value": {"session": "run-42"}},
        "some types only": {"value": {"session": "run-42", "extensions": [".bin", ".h5"]}},
        "nameless": {"value": {}, "summary": "the session is called 00-session-<ULID>"},
        "placed": {"value": {"session": "run-42", "shard": 0}, "summary": "on this shard and no other"},
    }
    return {
        "operationId": "start",
        "summary": "Start a session; answered when its record is on disk",
        "requestBody": _body(model, examples, required=False),
        "responses": {
            "201": _json("It runs", "Started", STARTED),
            **_problems(400, 409, 413, 503, *_whose(router=router)),
        },
    }


def _stop(model: str, *, router: bool) -> dict[str, Any]:
    examples = {
        "drain": {"value": {"session": "run-42"}, "summary": "finish what is there, then end"},
        "at once": {"value": {"session": "run-42", "drain": False}},
    }
    return {
        "operationId": "stop",
        "summary": "Stop a session",
        "requestBody": _body(model, examples, required=True),
        "responses": {
            "200": _json("It has stopped", "Ended", {"session": "run-42", "state": "stopped", "shard": 1}),
            "202": _json("It drains", "Ended", {"session": "run-42", "state": "draining", "shard": 1}),
            **_problems(400, 404, 413, 503, *_whose(router=router)),
        },
    }


def _status(*, router: bool) -> dict[str, Any]:
    return {
        "operationId": "status",
        "summary": "All sessions and shards, or one session",
        "parameters": [
            {
                "name": "session",
                "in": "query",
                "description": f"only this one; {NAME_RULE}",
                "schema": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128},
                "examples": {"one": {"value": "run-42"}},
            }
        ],
        "responses": {
            "200": _json("The status", "Status", STATUS),
            **_problems(400, 404, 503, *_whose(router=router)),
        },
    }


def _events() -> dict[str, Any]:
    text = "Server-sent events: a Status object as JSON at once, then on every change, at most four a second"
    return _got(text, "events", "text/event-stream", {"type": "string"})


def _probe(text: str, operation: str, *, ready: bool = False) -> dict[str, Any]:
    plain = {"text/plain": {"schema": {"type": "string"}}}
    no = {"503": {"description": "no; the text says why", "content": plain}} if ready else {}
    return {
        "operationId": operation,
        "summary": text,
        "responses": {"200": {"description": "yes", "content": plain}, **no},
    }


def _got(text: str, operation: str, media: str, schema: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": {"description": text, "content": {media: {"schema": schema}}}}
    return {"operationId": operation, "summary": text, "responses": responses}


def _body(model: str, examples: dict[str, Any], *, required: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": TEMPLATE.format(model=model)}, "examples": examples}}
    return {"required": required, "content": content}


def _json(text: str, model: str, example: dict[str, Any]) -> dict[str, Any]:
    schema = {"$ref": TEMPLATE.format(model=model)}
    return {"description": text, "content": {"application/json": {"schema": schema, "example": example}}}


def _whose(*, router: bool) -> tuple[int, ...]:
    """Return the errors that come of a session being elsewhere: a shard says so, the router goes there."""
    return (421, 500, 502) if router else (421, 500)


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(status): _problem(status) for status in sorted(statuses)}


def _problem(status: int) -> dict[str, Any]:
    bodies = [{"title": TITLES[status], "status": status, **body} for body in PROBLEMS[status]]
    content = {
        "schema": {"$ref": TEMPLATE.format(model="Problem")},
        "examples": {body["code"]: {"value": body} for body in bodies},
    }
    problem: dict[str, Any] = {
        "description": "; ".join(body["code"] for body in bodies),
        "content": {"application/problem+json": content},
    }
    if status == 503:
        problem["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "string"}}}
    return problem

"""The contract of both programs, OpenAPI 3.1: contract.json, completed by the models' schemas and the errors' answers.

In contract.json an operation names the codes of its `errors`, and `problems` has an example of each.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from uploader.errors import BadShard, Foreign, Refused
from uploader.version import VERSION
from uploader.web.openapi.models import (
    Code,
    Ended,
    Problem,
    Rates,
    Retried,
    RetryRequest,
    Started,
    StartRequest,
    Status,
    StopRequest,
)
from uploader.web.openapi.results import FilePage, ResultPage
from uploader.web.openapi.schemas import Schemas

CONTRACT = Path(__file__).with_name("contract.json")
MODELS: tuple[type[BaseModel], ...] = (
    StartRequest,
    StopRequest,
    RetryRequest,
    Started,
    Ended,
    Retried,
    Status,
    Rates,
    FilePage,
    ResultPage,
    Problem,
)
ERRORS = {error.code: error for error in Refused.__subclasses__()}
DATE = {"Date": {"$ref": "#/components/headers/Date"}}  # of every answer; uvicorn writes it
TEMPLATE = "#/components/schemas/{model}"


def document(*, router: bool) -> dict[str, Any]:
    """Return the contract of the router, or of a shard."""
    contract: dict[str, Any] = orjson.loads(CONTRACT.read_bytes())
    contract["info"]["version"] = VERSION
    contract["info"]["description"] = "\n".join(contract["info"]["description"])
    if not router:
        for path in ("/", "/v1/watch/rates"):
            del contract["paths"][path]
        del contract["servers"][1:]  # where the router is
    problems = contract.pop("problems")
    for operation in [operation for path in contract["paths"].values() for operation in path.values()]:
        codes = [code for code in operation.pop("errors", []) if router or code != BadShard.code] + [Foreign.code]
        operation["responses"] |= _responses([_problem(code, problems[code]) for code in codes])
        for response in operation["responses"].values():
            response["headers"] = response.get("headers", {}) | DATE
    _, schemas = models_json_schema(
        [(model, "validation") for model in MODELS], schema_generator=Schemas, ref_template=TEMPLATE
    )
    contract["components"]["schemas"] |= schemas["$defs"]
    return contract


def _problem(code: str, example: dict[str, Any]) -> dict[str, Any]:
    status = ERRORS[code].status
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=Code(code), **example)
    return problem.model_dump(mode="json", exclude_unset=True)


def _responses(problems: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the responses by status; a status may have several codes."""
    statuses = sorted({problem["status"] for problem in problems})
    return {str(status): _response([one for one in problems if one["status"] == status]) for status in statuses}


def _response(problems: list[dict[str, Any]]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": TEMPLATE.format(model=Problem.__name__)},
        "examples": {problem["code"]: {"value": problem} for problem in problems},
    }
    response: dict[str, Any] = {
        "description": "; ".join(problem["code"] for problem in problems),
        "content": {"application/problem+json": content},
    }
    if problems[0]["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "string"}}}
    return response

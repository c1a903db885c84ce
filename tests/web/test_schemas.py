"""The contract has only forms of which code generators make types that people can use.

tests/clients generates and compiles clients; these are the rules that they need, each seen in a generator that broke on it.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.programs import TOP
from uploader.web.openapi.document import ERRORS, document
from uploader.web.openapi.models import Code

ROUTER = document(router=True)
SCHEMAS: dict[str, Any] = ROUTER["components"]["schemas"]
OPERATIONS = [operation for path in ROUTER["paths"].values() for operation in path.values()]


def nodes(node: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the document, with its place."""
    if isinstance(node, dict):
        yield at, node
        for key, part in node.items():
            if key not in {"example", "examples"}:
                yield from nodes(part, f"{at}/{key}")
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from nodes(part, f"{at}/{index}")


def test_no_schema_has_a_default() -> None:
    """openapi-typescript takes a field with a default for one that is always there, also in a request."""
    assert not [at for at, node in nodes(ROUTER) if "default" in node and "/variables/" not in at]
    assert "required" not in SCHEMAS["StartRequest"]
    assert SCHEMAS["StopRequest"]["required"] == ["session"]


@pytest.mark.parametrize("name", ["SessionStatus", "Current", "FileStatus", "Result", "Receipt"])
def test_what_an_answer_always_has_is_required(name: str) -> None:
    """Else each reader asks for fields that cannot be missing."""
    assert SCHEMAS[name]["required"] == list(SCHEMAS[name]["properties"])


def test_what_an_answer_leaves_out_is_never_null() -> None:
    """One kind of absence is enough for a reader."""
    for name in ("ShardStatus", "Status", "Problem"):
        optional = SCHEMAS[name]["properties"].keys() - SCHEMAS[name]["required"]
        assert optional
        assert not [field for field in optional if "null" in str(SCHEMAS[name]["properties"][field])]


def test_numbers_have_64_bits() -> None:
    """A Go, Java or C# client cannot read the size of a file of 3 GB otherwise."""
    formats = {"integer": "int64", "number": "double"}
    for at, node in nodes(SCHEMAS):
        kinds = node.get("type", [])
        for kind in formats.keys() & {kinds} if isinstance(kinds, str) else formats.keys() & kinds:
            assert node.get("format") == formats[kind], at


def test_every_type_has_a_name() -> None:
    """A generator makes one up for an object or an enum without: ContractResponse200, FilesState."""
    unnamed = [at for at, node in nodes(ROUTER) if at.count("/") > 3 and ("enum" in node or "properties" in node)]
    assert not unnamed
    assert not [at for at, node in nodes(SCHEMAS) if isinstance(node.get("title"), str) and at.count("/") > 1]


def test_a_value_stands_in_one_enum_only() -> None:
    """The values of all enums are constants of one package in Go."""
    values = [value for schema in SCHEMAS.values() for value in schema.get("enum", [])]
    assert len(values) == len(set(values)) > 20


def test_each_call_has_a_name_and_a_tag_that_is_explained() -> None:
    """Generators make a module of each tag, and a function of each operationId."""
    tags = {tag["name"] for tag in ROUTER["tags"] if tag["description"]}
    names = [operation["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert {tag for operation in OPERATIONS for tag in operation["tags"]} == tags
    assert all(len(operation["tags"]) == 1 for operation in OPERATIONS)


def test_the_document_says_where_the_service_is_and_under_which_licence() -> None:
    """A shard's does not lead to the router. openapi-generator refuses a licence without an identifier."""
    urls = [server["url"] for server in ROUTER["servers"]]
    assert urls == ["/", "http://nfs-watch-router.nfs-watch:8080", "http://{node}:30080"]
    assert [server["url"] for server in document(router=False)["servers"]] == ["/"]
    assert ROUTER["info"]["license"]["identifier"] == "Apache-2.0"


def test_every_code_is_in_the_enum() -> None:
    """A client can be made to handle each, and no other: those of the calls, and those of paths that are none."""
    of_paths = {"not-found", "method-not-allowed"}
    assert {code.value for code in Code} == ERRORS.keys() | of_paths
    assert not ERRORS.keys() & of_paths


def test_every_answer_is_documented_to_have_a_date() -> None:
    """A client can tell its own clock from the service's."""
    for operation in OPERATIONS:
        for response in operation["responses"].values():
            assert response["headers"]["Date"] == {"$ref": "#/components/headers/Date"}
    assert ROUTER["components"]["headers"]["Date"]["required"]


def test_the_documentation_explains_every_code() -> None:
    """A reader of docs/api.md finds what to do about each, at its status."""
    rows = re.findall(r"^\| ([\d, ]+) \| (`[a-z`, -]+) \|", (TOP / "docs/api.md").read_text(), re.MULTILINE)
    told = {code: statuses for statuses, codes in rows for code in re.findall(r"[a-z-]+", codes)}
    assert told.keys() == {code.value for code in Code}
    assert not [error for error in ERRORS.values() if str(error.status) not in told[error.code]]

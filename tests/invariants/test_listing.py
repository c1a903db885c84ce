"""The answers about a session's files: what can never succeed is 4xx, and nothing is said that is not so."""

import os
from base64 import urlsafe_b64encode
from typing import Any

import orjson
import pytest

from tests.invariants.bed import Bed
from uploader.errors import BadRequest, NotEligible, UnknownFile
from uploader.sessions.service import Service
from uploader.web.openapi.document import CONTRACT
from uploader.web.openapi.models import FilesQuery, PageQuery
from uploader.web.openapi.results import FilePage, FileState, LeftBehind


def cursor(*parts: Any) -> str:
    text = orjson.dumps([part.encode().hex() if isinstance(part, str) else part for part in parts])
    return urlsafe_b64encode(text).decode().rstrip("=")


def sent(bed: Bed) -> None:
    """Leave the receipt of one file that was sent."""
    line = {"path": "x", "inode": 1, "mtime": "2026-01-01T00:00:00Z", "size": 1, "session": "run"}
    bed.completed.receipts.write("run", [orjson.dumps(line) + b"\n"])


def ask(service: Service, **query: Any) -> FilePage:
    return service.files("run", FilesQuery(session="run", **query))


@pytest.mark.parametrize(
    "after",
    [
        cursor("written", "", -1),
        cursor("written", "", 2**63),
        cursor("written", "", 1e308),
        cursor("written", 1, 1),
        cursor("waiting", 5),
        cursor("waiting", "a", "b"),
        cursor("nothing"),
        urlsafe_b64encode(b"[1e999]").decode().rstrip("="),
    ],
)
def test_a_cursor_that_nobody_was_given_is_a_bad_request(bed: Bed, service: Service, after: str) -> None:
    """Also one that looks right: the share must not be blamed for it, nor the program fail."""
    sent(bed)
    with pytest.raises(BadRequest, match="after"):
        ask(service, after=after)


@pytest.mark.parametrize(
    "path", ["a\x00b", "a" * 300, "/".join("a" * 4 for _ in range(400)), "x/", "/x", ".x", "a/.x/y", "x.bin.processing"]
)
def test_a_path_that_no_file_can_have_is_unknown(service: Service, path: str) -> None:
    with pytest.raises(UnknownFile):
        ask(service, path=path)


@pytest.mark.parametrize("path", ["x.tmp", "a.part/x", "x.completed"])
def test_a_file_that_is_left_alone_is_not_said_to_wait(bed: Bed, service: Service, path: str) -> None:
    bed.write(path, b"x")
    with pytest.raises(UnknownFile):
        ask(service, path=path)


def test_a_file_beyond_the_queue_waits(bed: Bed, service: Service) -> None:
    bed.write("a/x", b"x")
    assert [one.state for one in ask(service, path="a/x").files] == [FileState.WAITING]


def ended(bed: Bed, service: Service) -> None:
    """Send one file, leave one behind that is named and one that is only counted."""
    sent(bed)
    service.stop("run", drain=False)
    bed.walk()
    result = service.results.get("run")
    assert result
    result.files.left_behind = 2
    result.left_behind = [LeftBehind("y", "why")]
    service.results.write(result)


def test_what_a_session_that_has_ended_sent_is_never_said_to_be_nothing(bed: Bed, service: Service) -> None:
    ended(bed, service)
    with pytest.raises(UnknownFile, match="receipts"):
        ask(service, state="done")
    assert [one.path for one in ask(service).files] == ["y"]


def test_a_file_that_a_result_only_counts_is_not_said_to_have_been_sent(bed: Bed, service: Service) -> None:
    ended(bed, service)
    with pytest.raises(UnknownFile, match="names 1 of the 2"):
        ask(service, path="z")
    with pytest.raises(BadRequest):
        ask(service, after=cursor("left", -1))


def test_the_cursor_of_the_longest_path_is_taken(service: Service) -> None:
    """As long as the contract allows: PATH_MAX, and no byte of it is text."""
    files = service.runs["run"].files
    for last in "ab":
        files.fail(os.fsdecode(b"\xff" * 4095) + last, NotEligible("its name is not UTF-8"))
    first = ask(service, state="failed", limit=1)
    assert first.next
    assert len(ask(service, state="failed", limit=1, after=first.next).files) == 1
    operations = orjson.loads(CONTRACT.read_bytes())["paths"]
    for call in "files", "results":
        (after,) = [one for one in operations[f"/v1/watch/{call}"]["get"]["parameters"] if one["name"] == "after"]
        taken = PageQuery.model_json_schema()["properties"]["after"]["anyOf"][0]
        assert {name: taken[name] for name in ("maxLength", "pattern", "type")} == after["schema"]

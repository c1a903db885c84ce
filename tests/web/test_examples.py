"""The examples in the contract are what the programs answer: each is asked for, and compared."""

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.support.cluster import cluster
from tests.support.programs import Server, free_port, router, wait_for
from uploader.web.application import application
from uploader.web.events import Events
from uploader.web.foreign import Names
from uploader.web.openapi.document import document

CALLS = {
    operation["operationId"]: (method, path, operation)
    for path, operations in document(router=True)["paths"].items()
    for method, operation in operations.items()
}
NAME = "run-42"  # its owner by rank is shard 1 of two
# Times, and what depends on the moment or the machine: of these the example shows the form.
DEPENDS = {"started_at", "began", "ended", "at", "next_try", "mtime", "committed", "inode", "etag", "since"}
DEPENDS |= {"endpoint", "version", "attempts", "age_s", "rates", "rate_bytes_per_s", "next"}

TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")

Answers = dict[str, dict[str, Any]]


def shown() -> Answers:
    """Return the examples of answers, by call and status, and each problem once, by its code."""
    found: Answers = {}
    for name, (_, _, operation) in CALLS.items():
        for status, response in operation["responses"].items():
            for content in response["content"].values():
                found |= {code: one["value"] for code, one in content.get("examples", {}).items()}
                found |= {f"{name} {status}": content["example"]} if "example" in content else {}
    return found


def say(server: Server, name: str, **what: Any) -> tuple[int, dict[str, Any]]:
    """Make a call; return the answer's status and body."""
    method, path, _ = CALLS[name]
    response = httpx.request(method, server.url + path, timeout=60, **what)
    return response.status_code, response.json()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Bring two shards and a router into the states that the examples show, one after the other."""
    answers: Answers = {}
    session = {"session": NAME}
    folder = tmp_path_factory.mktemp("examples")

    def asked(server: Server, name: str, **what: Any) -> dict[str, Any]:
        status, body = say(server, name, **what)
        answers[body.get("code") or f"{name} {status}"] = body
        return body

    with cluster(folder, 2, max_sessions=1) as site:
        front, (other, _) = site.router, site.shards

        def ended(name: str) -> bool:
            _, status = say(front, "status", params={"session": name})
            return bool(status["sessions"][0]["state"] == "ended")

        asked(front, "start", json={"sesion": NAME})
        asked(front, "start", content=b" " * 70_000)
        asked(front, "start", json=session, headers={"Origin": "https://elsewhere.example"})
        asked(front, "stop", json=session)
        asked(front, "start", json=session)
        asked(front, "stop", json=session)
        wait_for(lambda: ended(NAME), "the first session's end")
        say(front, "start", json=session)
        asked(front, "start", json=session)
        asked(front, "files", params={**session, "path": "a/b.bin"})
        asked(other, "stop", json=session)
        say(front, "start", json={"session": "run-41"})
        asked(front, "start", json={"session": "run-43"})
        say(front, "stop", json={"session": "run-41"})
        wait_for(lambda: ended("run-41"), "the other session's end")
        _deliver(site.root / NAME)
        wait_for(lambda: asked(front, "rates")["sessions"], "the router to look at the rates")
        wait_for(lambda: _settled(asked(front, "files", params=session)["files"]), "a receipt and a failed file")
        wait_for(lambda: asked(front, "retry", json=session)["files"], "the failed file to be due")
        other.kill()
        wait_for(lambda: _missed(asked(front, "status")), "a shard to be missed, and the file to have failed again")
        asked(front, "start", json={**session, "shard": 0})
        asked(front, "stop", json={**session, "drain": False})
        asked(front, "retry", json=session)
        wait_for(lambda: ended(NAME), "the session's end")
        asked(front, "results", params={"limit": "1"})
    with _wrong(folder) as wrong:
        asked(wrong, "stop", json=session)
    with _crowded(folder) as crowded:
        asked(crowded, "events")
    return answers | {"internal-error": _broken()}


def _deliver(folder: Path) -> None:
    """Hand over a file that can be sent, and a link, which cannot."""
    (folder / "a").mkdir()
    (folder / "a/b.bin").symlink_to("nowhere")
    (folder / ".c.bin").write_bytes(b"x" * 1000)
    (folder / ".c.bin").rename(folder / "c.bin")


def _settled(files: list[dict[str, Any]]) -> bool:
    return [one["state"] for one in files] == ["failed", "done"] and files[1]["receipt"] is not None


def _missed(status: dict[str, Any]) -> bool:
    (session,) = status["sessions"]
    return not status["shards"][0]["reachable"] and [one["state"] for one in session["current"]] == ["failed"]


@contextlib.contextmanager
def _wrong(folder: Path) -> Iterator[Server]:
    """Run a router whose shard is some other program."""
    port = free_port()
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder / "share")]
    stranger = Server(argv, folder / "stranger.log", port)
    front = router(folder, stranger.url + "/{ordinal}")
    try:
        stranger.up("/")
        front.up()
        yield front
    finally:
        front.kill()
        stranger.kill()


@contextlib.contextmanager
def _crowded(folder: Path) -> Iterator[Server]:
    """Run a router that has as many viewers as it takes."""
    with contextlib.ExitStack() as stack:
        front = router(folder, "http://127.0.0.1:9/{ordinal}", clients=16)
        stack.callback(front.kill)
        front.up()
        for _ in range(12):
            stack.enter_context(httpx.stream("GET", f"{front.url}/v1/watch/events", timeout=60))
        yield front


def _broken() -> dict[str, Any]:
    """Return the answer of an application whose handlers have a fault."""

    async def handler(_: Request) -> Response:
        raise KeyError("secret")

    async def ask() -> httpx.Response:
        program = application(dict.fromkeys(CALLS, handler), Events(_none), Names([], "", ""), router=True)
        transport = httpx.ASGITransport(program, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            return await client.get("/v1/watch/status")

    body: dict[str, Any] = asyncio.run(ask()).json()
    return body


async def _none() -> None:
    return None


def form(value: Any, key: str = "") -> Any:
    """Return the value; of what depends on the moment only its type."""
    if isinstance(value, dict):
        return {key: form(part, key) for key, part in value.items()}
    if isinstance(value, list) and key != "rates":
        return [form(part, key) for part in value]
    if key in DEPENDS:
        return "number" if isinstance(value, int | float) else type(value).__name__
    return TIME.sub("TIME", value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", sorted(shown()))
def test_each_example_is_what_the_programs_answer(answers: Answers, name: str) -> None:
    """A reader who builds on an example meets no other answer."""
    assert form(answers.get(name)) == form(shown()[name])


def test_each_call_shows_an_answer() -> None:
    """A call that answers JSON has an example; the contract itself is one."""
    silent = {
        name
        for name, (_, _, operation) in CALLS.items()
        if "application/json" in str(operation["responses"]) and not any(key.startswith(f"{name} ") for key in shown())
    }
    assert silent == {"contract"}

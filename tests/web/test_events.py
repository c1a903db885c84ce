"""The status as server-sent events, over real uvicorn and real sockets."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from tests.support.clock import in_no_time
from tests.support.programs import wait_for
from uploader.web import events as module
from uploader.web.events import Events

BUFFER = 256 * 1024  # bytes of a socket's buffer, whose default depends on the machine


class Source:
    """A status that the test changes; counts how often it is read."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"number": 0}
        self.asked = 0
        self.fails = False

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self.fails:
            raise OSError("no status now")
        return self.state


class Site:
    """Events behind a real uvicorn, in a thread."""

    def __init__(self, interval: float = 0.25, heartbeat: float = 15) -> None:
        self.source = Source()
        self.events = Events(self.source, interval, heartbeat)
        app = Starlette(routes=[Route("/events", self.respond, methods=["GET"])])
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)  # also of what it accepts
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/events"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    async def respond(self, request: Any) -> Any:
        return self.events.response(request)

    @property
    def clients(self) -> int:
        return self.events._clients


@contextlib.contextmanager
def site(**options: float) -> Iterator[Site]:
    it = Site(**options)
    it.thread.start()
    try:
        yield it
    finally:
        it.server.should_exit = it.server.force_exit = True
        it.thread.join()
        it.listener.close()


def lines(response: httpx.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    number = ""
    for line in lines(response):
        if line.startswith("id: "):
            number = line[4:]
        if line.startswith("data: "):
            yield number, json.loads(line[6:])


@contextlib.contextmanager
def watching(url: str, **headers: str) -> Iterator[httpx.Response]:
    with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield response


def test_the_full_state_comes_at_once_and_again_on_each_change() -> None:
    """A page needs no second request to show where things stand."""
    with site(interval=0.1) as it, watching(it.url) as response:
        stream = events(response)
        assert next(stream) == ("1", {"number": 0})
        it.source.state = {"number": 1}
        assert next(stream) == ("2", {"number": 1})


def test_a_client_that_comes_back_is_sent_the_present_state_whatever_it_saw_last() -> None:
    """Last-Event-ID is not needed for a full state, and a foreign one does no harm."""
    with site(interval=0.1) as it, watching(it.url) as first:
        stream = events(first)  # kept: httpx closes the response with its iterator
        number, _ = next(stream)
        with watching(it.url, **{"Last-Event-ID": number}) as again:
            assert next(events(again)) == (number, {"number": 0})
        with watching(it.url, **{"Last-Event-ID": "of another process"}) as other:
            assert next(events(other)) == (number, {"number": 0})


def test_browsers_are_told_to_come_back_after_a_second() -> None:
    """The stream sets EventSource's pause before it connects again."""
    with site() as it, watching(it.url) as response:
        assert next(lines(response)) == "retry: 1000"


async def seen(events: Events, count: int) -> list[tuple[float, bytes]]:
    """Watch until so many parts have come; return each with its time in seconds."""
    loop = asyncio.get_running_loop()
    stream: Any = events.response(Request({"type": "http", "method": "GET"}))
    came = []
    async for part in stream.body_iterator:
        came.append((loop.time(), bytes(part)))
        if len(came) == count:
            break
    await stream.body_iterator.aclose()
    return came


def test_there_are_at_most_four_events_a_second() -> None:
    """The state changes at every look, and the pace stays the same."""
    source = Source()

    async def changing() -> dict[str, Any]:
        source.asked += 1
        return {"number": source.asked}

    (_, retry), *came = in_no_time(seen(Events(changing), 9))
    assert retry.startswith(b"retry")
    assert [when for when, _ in came] == pytest.approx([0.25 * number for number in range(8)])
    assert [event.split(b"\n")[0] for _, event in came] == [b"id: %d" % number for number in range(1, 9)]
    assert source.asked == 8


def test_silence_is_broken_by_comments() -> None:
    """A proxy or a browser does not close the connection for being idle."""
    _, (begun, event), *comments = in_no_time(seen(Events(Source(), heartbeat=15), 5))
    assert event.startswith(b"id: 1\n")
    assert [when - begun for when, _ in comments] == pytest.approx([15, 30, 45], abs=0.3)
    assert all(comment.startswith(b":") for _, comment in comments)


def test_nobody_is_asked_while_nobody_looks() -> None:
    """Without a client the status is not collected: it costs requests to every shard."""
    source = Source()

    async def looks() -> list[int]:
        events, asked = Events(source), []
        for _ in range(2):
            await asyncio.sleep(60)
            asked.append(source.asked)
            await seen(events, 3)
            asked.append(source.asked)
        await asyncio.sleep(60)
        return [*asked, source.asked]

    before, first, between, second, after = in_no_time(looks())
    assert before == 0
    assert 0 < first == between < second == after


def test_who_comes_after_a_pause_is_not_shown_the_past() -> None:
    """The state of the last client's time must not be sent to the next."""
    with site(interval=0.05) as it:
        with watching(it.url) as response:
            next(events(response))
        wait_for(lambda: it.clients == 0, "the client to be forgotten")
        it.source.state = {"number": 7}
        with watching(it.url) as response:
            assert next(events(response))[1] == {"number": 7}


def test_a_failing_snapshot_does_not_end_the_stream_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A page keeps its connection through an outage, and the log stays readable."""
    with site(interval=0.05) as it, watching(it.url) as response:
        stream = events(response)
        next(stream)
        asked = it.source.asked
        it.source.fails = True
        wait_for(lambda: it.source.asked > asked + 4, "more looks")
        it.source.state, it.source.fails = {"number": 1}, False
        assert next(stream)[1] == {"number": 1}
    said = [record.message for record in caplog.records if record.name == module.__name__]
    assert said.count("events.snapshot_failed") == 1


def test_a_slow_client_gets_the_latest_state_and_holds_up_nobody() -> None:
    """What it has missed is skipped, so no queue of old states grows in memory."""
    with site(interval=0.02) as it, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        slow.connect(("127.0.0.1", it.port))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: it.clients == 1, "the slow client")
        with watching(it.url) as response:
            stream = events(response)
            for number in range(1, 80):
                it.source.state = {"number": number, "padding": "x" * 200_000}
                assert any(state["number"] == number for _, state in stream)
        # 16 MB went to the other client. What waits for the slow one is what the kernel and uvicorn hold.
        slow.settimeout(60)
        with slow.makefile("rb") as received:
            states = (json.loads(line[6:]) for line in received if line.startswith(b"data: "))
            numbers = list(takewhile(lambda number: number < 79, (state["number"] for state in states)))
        assert len(numbers) < 60


def test_a_hundred_clients_cost_one_poller_and_one_serialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the status serves all clients, and each of them is sent its result."""
    dumped: list[int] = []

    def encoded(state: dict[str, Any]) -> bytes:
        dumped.append(state["number"])
        return orjson.dumps(state)

    monkeypatch.setattr(module, "encoded", encoded)
    source = Source()

    async def ticking() -> dict[str, Any]:
        source.asked += 1
        return {"number": source.asked}

    async def all_of() -> list[list[tuple[float, bytes]]]:
        events = Events(ticking)
        return await asyncio.gather(*(seen(events, 9) for _ in range(100)))

    came = in_no_time(all_of())
    assert all(one == came[0] for one in came)
    assert dumped == list(range(1, source.asked + 1))
    assert source.asked == 8


def test_a_hundred_clients_are_served_side_by_side() -> None:
    """Over real sockets, each client sees eight states while all others stay connected."""

    async def one(client: httpx.AsyncClient, url: str, all_there: asyncio.Barrier) -> None:
        async with client.stream("GET", url) as response:
            states = (line async for line in response.aiter_lines() if line.startswith("data: "))
            for _ in range(8):
                await anext(states)
            await all_there.wait()

    async def all_of(url: str) -> None:
        limits, all_there = httpx.Limits(max_connections=None), asyncio.Barrier(100)
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(one(client, url, all_there) for _ in range(100)))

    with site() as it:

        async def ticking() -> dict[str, Any]:
            it.source.asked += 1
            return {"padding": "x" * 20_000, "number": it.source.asked}

        it.events._snapshot = ticking
        asyncio.run(all_of(it.url))

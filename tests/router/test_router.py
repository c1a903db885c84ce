"""The router in front of shards that behave, and (with respx and real sockets) of shards that do not."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from starlette.applications import Starlette
from starlette.requests import Request

from router.app import POLL, app
from router.gather import WHOLE, Gather
from router.settings import Settings
from router.shard import ANSWER_LIMIT, Shards
from tests.support.clock import in_no_time
from tests.support.programs import free_port, router, wait_for
from uploader.cluster.placement import rank
from uploader.cluster.replicas import FixedReplicas, ReplicasUnknown
from uploader.web.events import Events
from uploader.web.openapi.models import Status

NAME = "run-42"
FIRST, SECOND, THIRD = rank(NAME, 3)
STARTED = {"session": NAME, "state": "active", "folder": NAME, "started_at": "2026-03-01T12:00:00.000Z"}


class Unknown:
    def count(self) -> int:
        raise ReplicasUnknown("the Kubernetes API is away")


def made(n: int = 3, source: Any = None) -> Starlette:
    return app(Settings(shard_url="http://shard-{ordinal}"), source or FixedReplicas(n))


@contextlib.asynccontextmanager
async def talking(program: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(program, raise_app_exceptions=False), base_url="http://router"
    ) as client:
        yield client


def ask(method: str, path: str, *, n: int = 3, source: Any = None, **what: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with talking(made(n, source)) as client:
            return await client.request(method, path, **what)

    return asyncio.run(run())


def start(n: int = 3, **fields: Any) -> httpx.Response:
    return ask("POST", "/v1/watch/start", n=n, json={"session": NAME, **fields})


def stop(**fields: Any) -> httpx.Response:
    return ask("POST", "/v1/watch/stop", json={"session": NAME, **fields})


@pytest.fixture
def shards() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False, assert_all_mocked=True) as mock:
        mock.route(host="router").pass_through()
        yield mock


def at(mock: respx.MockRouter, shard: int, call: str) -> respx.Route:
    return mock.route(host=f"shard-{shard}", path=f"/v1/watch/{call}")


def refusal(status: int, code: str, **extra: Any) -> httpx.Response:
    body = {"title": "t", "status": status, "code": code, "detail": f"the shard says {code}", **extra}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


def sent(route: respx.Route) -> list[dict[str, Any]]:
    return [httpx.Response(200, content=call.request.content).json() for call in route.calls]


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status == 503)
    return body


# start


def test_a_start_goes_to_the_first_in_the_rank_without_naming_it(shards: respx.MockRouter) -> None:
    """The shard may still answer 421 for a session that another owns."""
    owner = at(shards, FIRST, "start").respond(201, json={**STARTED, "shard": FIRST})
    response = start(extensions=[".bin"])
    assert response.status_code == 201
    assert response.json() == {**STARTED, "shard": FIRST}
    assert sent(owner) == [{"session": NAME, "extensions": [".bin"]}]


def test_a_start_without_a_name_gets_one_that_sorts_by_time(shards: respx.MockRouter) -> None:
    """The router makes the name, for a repeated try must use the same."""
    routes = [at(shards, shard, "start").respond(201, json=STARTED) for shard in range(3)]
    assert ask("POST", "/v1/watch/start").status_code == 201
    (body,) = [body for route in routes for body in sent(route)]
    assert body["session"].startswith("00-session-")
    assert len(body["session"]) == len("00-session-") + 26


def test_a_421_is_followed_once_to_the_shard_it_names(shards: respx.MockRouter) -> None:
    """The caller need not know which shard owns a session."""
    at(shards, FIRST, "start").mock(return_value=refusal(421, "not-owner", shard=THIRD))
    owner = at(shards, THIRD, "start").respond(201, json={**STARTED, "shard": THIRD})
    assert start().json()["shard"] == THIRD
    assert sent(owner) == [{"session": NAME, "shard": THIRD}]


def test_a_full_shard_makes_the_next_in_the_rank_be_offered_the_session(shards: respx.MockRouter) -> None:
    """The next shard is asked with its number, so that it takes a name that ranks elsewhere."""
    at(shards, FIRST, "start").mock(return_value=refusal(409, "shard-full", sessions=["other"]))
    second = at(shards, SECOND, "start").respond(201, json={**STARTED, "shard": SECOND})
    assert start().json()["shard"] == SECOND
    assert sent(second) == [{"session": NAME, "shard": SECOND}]


@pytest.mark.parametrize(
    "trouble",
    [
        {"side_effect": httpx.ConnectError("refused")},
        {"side_effect": httpx.ConnectTimeout("slow")},
        {"side_effect": httpx.ReadTimeout("slow")},
        {"side_effect": httpx.RemoteProtocolError("gone in the middle")},
        {"return_value": refusal(503, "not-ready")},
        {"return_value": httpx.Response(503, html="<h1>no upstream</h1>")},
    ],
)
def test_a_shard_that_is_away_is_passed_over(shards: respx.MockRouter, trouble: dict[str, Any]) -> None:
    """One dead shard does not stop new sessions."""
    at(shards, FIRST, "start").mock(**trouble)
    at(shards, SECOND, "start").respond(201, json={**STARTED, "shard": SECOND})
    assert start().json()["shard"] == SECOND


def test_every_shard_full_is_a_409_that_names_all_that_runs(shards: respx.MockRouter) -> None:
    """The caller sees which session to stop."""
    for shard in range(3):
        at(shards, shard, "start").mock(return_value=refusal(409, "shard-full", sessions=[f"on-{shard}"]))
    body = is_problem(start(), 409, "shard-full")
    assert body["sessions"] == ["on-0", "on-1", "on-2"]


def test_no_shard_reachable_is_a_503_that_says_which(shards: respx.MockRouter) -> None:
    """The caller may try again, and the operator sees where to look."""
    shards.route().mock(side_effect=httpx.ConnectError("refused"))
    body = is_problem(start(), 503, "not-ready")
    assert all(f"shard {shard} is not reachable" in body["detail"] for shard in range(3))


def test_full_and_away_together_are_worth_another_try(shards: respx.MockRouter) -> None:
    """The shard that is away may have room: 503, not 409."""
    at(shards, FIRST, "start").mock(return_value=refusal(409, "shard-full", sessions=["other"]))
    for shard in (SECOND, THIRD):
        at(shards, shard, "start").mock(side_effect=httpx.ConnectError("refused"))
    body = is_problem(start(), 503, "not-ready")
    assert f"shard {FIRST} is full" in body["detail"]
    assert body["sessions"] == ["other"]


def test_already_active_ends_the_search(shards: respx.MockRouter) -> None:
    """The session exists: another shard must not start it a second time."""
    at(shards, FIRST, "start").mock(side_effect=httpx.ReadTimeout("slow"))
    at(shards, SECOND, "start").mock(return_value=refusal(409, "already-active", shard=FIRST))
    third = at(shards, THIRD, "start").respond(201, json=STARTED)
    body = is_problem(start(), 409, "already-active")
    assert body["detail"] == "the shard says already-active"
    assert not third.called


def test_a_lost_answer_to_a_start_with_a_made_up_name_is_found_again(shards: respx.MockRouter) -> None:
    """The record that the next shard finds can only be that of the request whose answer was lost."""
    names: list[str] = []

    def lost_or_refused(request: httpx.Request) -> httpx.Response:
        names.append(httpx.Response(200, content=request.content).json()["session"])
        if len(names) == 1:
            raise httpx.ReadTimeout("slow")
        return refusal(409, "already-active")

    def status(_: httpx.Request) -> httpx.Response:
        found = {**STARTED, "session": names[0], "shard": 1, "current": []}
        return httpx.Response(200, json={"sessions": [found], "shards": []})

    shards.route(path="/v1/watch/start").mock(side_effect=lost_or_refused)
    shards.route(path="/v1/watch/status").mock(side_effect=status)
    response = ask("POST", "/v1/watch/start")
    assert response.status_code == 201
    assert response.json() == {**STARTED, "session": names[0], "folder": names[0], "shard": 1}
    assert len(set(names)) == 1


@pytest.mark.parametrize("call", ["start", "stop"])
def test_shards_that_send_each_other_round_in_circles_are_a_502(shards: respx.MockRouter, call: str) -> None:
    """The router asks at most three times and says that the shards do not agree."""
    for shard in range(3):
        other = (shard + 1) % 3
        at(shards, shard, call).mock(return_value=refusal(421, "not-owner", shard=other))
    response = ask("POST", f"/v1/watch/{call}", json={"session": NAME})
    assert "do not agree" in is_problem(response, 502, "bad-shard")["detail"]
    assert shards.calls.call_count <= 3


def test_a_421_that_names_nobody_is_a_502(shards: respx.MockRouter) -> None:
    at(shards, FIRST, "start").mock(return_value=refusal(421, "not-owner", shard="x"))
    is_problem(start(), 502, "bad-shard")


def test_an_owner_that_is_away_is_named_in_the_503(shards: respx.MockRouter) -> None:
    """Nobody else can stop the session: the caller has to wait for that shard."""
    for shard in range(3):
        at(shards, shard, "stop").mock(return_value=refusal(421, "not-owner", shard=SECOND))
    at(shards, SECOND, "stop").mock(side_effect=httpx.ConnectError("refused"))
    assert f"shard {SECOND} owns the session" in is_problem(stop(), 503, "not-ready")["detail"]


def test_a_start_that_names_a_shard_goes_there_and_nowhere_else(shards: respx.MockRouter) -> None:
    """A caller who chooses a shard gets that shard's refusal."""
    named = at(shards, THIRD, "start").mock(return_value=refusal(409, "shard-full", sessions=["other"]))
    assert is_problem(start(shard=THIRD), 409, "shard-full")["sessions"] == ["other"]
    assert sent(named) == [{"session": NAME, "shard": THIRD}]
    assert shards.calls.call_count == 1


def test_a_named_shard_that_is_away_is_a_503(shards: respx.MockRouter) -> None:
    """No other shard is tried."""
    at(shards, THIRD, "start").mock(side_effect=httpx.ConnectError("refused"))
    is_problem(start(shard=THIRD), 503, "not-ready")
    assert shards.calls.call_count == 1


def test_a_shard_that_does_not_exist_is_a_400(shards: respx.MockRouter) -> None:
    assert "shards are numbered from 0 to 2" in is_problem(start(shard=3), 400, "bad-request")["detail"]
    assert not shards.calls


# what a shard may not answer


@pytest.mark.parametrize(
    "garbage",
    [
        httpx.Response(201, html="<h1>It works!</h1>"),
        httpx.Response(201, json=["a", "list"]),
        httpx.Response(201, content=b""),
        httpx.Response(201, content=b"\xff\xfe" * 1000),
        httpx.Response(500, json={"detail": "KeyError"}),
        httpx.Response(500, text="Internal Server Error"),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
        httpx.Response(418),
        httpx.Response(201, content=b'"' + b"x" * ANSWER_LIMIT + b'"'),
        httpx.Response(204),
        httpx.Response(409, json={"detail": "no code"}),
        httpx.Response(404, json={"code": 7}),
    ],
)
@pytest.mark.parametrize("call", ["start", "stop", "status"])
def test_garbage_from_a_shard_is_a_502_that_names_it(
    shards: respx.MockRouter, call: str, garbage: httpx.Response
) -> None:
    """A start may have succeeded there, so no other shard is asked."""
    at(shards, FIRST, call).mock(return_value=garbage)
    others = [at(shards, shard, call).respond(201, json=STARTED) for shard in (SECOND, THIRD)]
    if call == "status":
        response = ask("GET", "/v1/watch/status", params={"session": NAME})
    else:
        response = ask("POST", f"/v1/watch/{call}", json={"session": NAME})
    assert is_problem(response, 502, "bad-shard")["shard"] == FIRST
    assert f"shard {FIRST} answered" in response.json()["detail"]
    assert not any(route.called for route in others)


def test_a_shard_whose_status_is_garbage_is_shown_as_not_reachable(shards: respx.MockRouter) -> None:
    """The other shards' sessions are shown all the same."""
    at(shards, 0, "status").respond(200, json={"sessions": [{"session": "a"}], "shards": []})
    at(shards, 1, "status").respond(200, html="<h1>It works!</h1>")
    at(shards, 2, "status").respond(200, json={"sessions": ["a", 7]})
    body = ask("GET", "/v1/watch/status").json()
    assert body["sessions"] == [{"session": "a"}]
    assert [shard["reachable"] for shard in body["shards"]] == [True, False, False]
    assert body["shards"][0] == {"shard": 0, "reachable": True, "sessions": ["a"]}
    assert "shard 1 answered" in body["shards"][1]["error"]


# stop and status of one


def test_a_stop_is_sent_to_the_owner_and_its_answer_handed_on(shards: respx.MockRouter) -> None:
    at(shards, FIRST, "stop").mock(return_value=refusal(421, "not-owner", shard=SECOND))
    owner = at(shards, SECOND, "stop").respond(202, json={"session": NAME, "state": "draining"})
    response = stop(drain=False)
    assert (response.status_code, response.json()) == (202, {"session": NAME, "state": "draining"})
    assert sent(owner) == [{"session": NAME, "drain": False}]


def test_an_unknown_session_is_a_404_from_the_first_shard_that_answers(shards: respx.MockRouter) -> None:
    """Every shard sees every record, so one answer is enough."""
    at(shards, FIRST, "stop").mock(side_effect=httpx.ConnectError("refused"))
    at(shards, SECOND, "stop").mock(return_value=refusal(404, "unknown-session"))
    is_problem(stop(), 404, "unknown-session")
    assert shards.calls.call_count == 2


def test_the_status_of_one_session_comes_from_its_owner(shards: respx.MockRouter) -> None:
    at(shards, FIRST, "status").mock(return_value=refusal(421, "not-owner", shard=SECOND))
    at(shards, SECOND, "status").respond(200, json={"sessions": [{"session": NAME}], "shards": []})
    response = ask("GET", "/v1/watch/status", params={"session": NAME})
    assert response.json()["sessions"] == [{"session": NAME}]
    assert shards.calls.last.request.url.params["session"] == NAME


# bad input, no shards


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "JSON object"),
        (b'{"sesion": "a"}', 400, "allowed are session, extensions, shard"),
        (b'{"session": "a/b"}', 400, "1 to 128"),
        (b'{"session": "a..b"}', 400, "1 to 128"),
        (b'{"session": "a\\u0000"}', 400, "1 to 128"),
        (b'{"session": "' + b"a" * 300 + b'"}', 400, "1 to 128"),
        (b'{"extensions": ["bin"]}', 400, "a dot"),
        (b'{"shard": -1}', 400, "shard"),
        (b'{"session": "' + b"a" * 10 * 1024 * 1024 + b'"}', 413, "larger than"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed_and_reaches_no_shard(
    shards: respx.MockRouter, body: bytes, status: int, says: str
) -> None:
    """The sentence tells the caller the rule."""
    response = ask("POST", "/v1/watch/start", content=body)
    code = {400: "bad-request", 413: "too-large"}[status]
    assert says in is_problem(response, status, code)["detail"]
    assert not shards.calls


def test_a_bad_name_in_the_query_is_a_400(shards: respx.MockRouter) -> None:
    is_problem(ask("GET", "/v1/watch/status", params={"session": "../x"}), 400, "bad-request")
    assert not shards.calls


def test_no_shards_at_all_is_a_503_for_what_needs_one_and_an_empty_status() -> None:
    """Scaled to 0 is a state to come back from, and no error of the caller."""
    assert "scaled to 0" in is_problem(start(n=0), 503, "not-ready")["detail"]
    assert ask("GET", "/v1/watch/status", n=0).json() == {"sessions": [], "shards": []}


def test_an_unknown_number_of_shards_is_a_503() -> None:
    """Liveness is not affected: a restart would not help."""
    body = is_problem(ask("POST", "/v1/watch/start", source=Unknown()), 503, "not-ready")
    assert "the Kubernetes API is away" in body["detail"]
    assert ask("GET", "/readyz", source=Unknown()).status_code == 503
    assert ask("GET", "/livez", source=Unknown()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/watch/start", 405), ("PUT", "/", 405)],
)
def test_unknown_paths_and_methods_are_problems_too(method: str, path: str, status: int) -> None:
    response = ask(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_probes_are_plain_text() -> None:
    """A person with curl can read them."""
    for path in ("/livez", "/readyz"):
        response = ask("GET", path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")


# the program, and real sockets


@contextlib.contextmanager
def hung() -> Iterator[int]:
    """Yield the port of a shard that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def gathering(*hang: int) -> Gather:
    """Return a Gather over shards of which these take an hour to answer."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host in {f"shard-{one}" for one in hang}:
            await asyncio.sleep(3600)
        return httpx.Response(200, json={"sessions": [{"session": "a", "number": next(numbers)}]})

    numbers = itertools.count()
    return Gather(Shards(httpx.AsyncClient(transport=httpx.MockTransport(answer)), "http://shard-{ordinal}"))


def test_hung_shards_do_not_delay_the_status_by_more_than_two_seconds() -> None:
    """Measured by the event loop's own clock, so that a busy machine does not matter."""

    async def asked() -> tuple[float, Status]:
        status = await gathering(1, 2, 3, 4).now(5)
        return asyncio.get_running_loop().time(), status

    took, status = in_no_time(asked())
    assert 1 < took < 2
    assert [shard.reachable for shard in status.shards] == [True, False, False, False, False]


class Many:
    """A thousand stand-ins; each answers after `takes` seconds of the loop's clock, those in `hung` never."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.hung: set[int] = set()
        self.answered: set[int] = set()
        self.asking = self.most = 0
        self.gather = Gather(
            Shards(httpx.AsyncClient(transport=httpx.MockTransport(self.answer)), "http://s-{ordinal}")
        )

    async def answer(self, request: httpx.Request) -> httpx.Response:
        shard = int(request.url.host.removeprefix("s-"))
        self.asking += 1
        self.most = max(self.most, self.asking)
        try:
            await asyncio.sleep(1000 if shard in self.hung else self.takes)
        finally:
            self.asking -= 1
        self.answered.add(shard)
        return httpx.Response(200, json={"sessions": [{"session": f"run-{shard}"}]})


def away(status: Status) -> list[int]:
    return [shard.shard for shard in status.shards if not shard.reachable]


def test_of_a_thousand_shards_none_is_shown_as_away_because_the_router_is_busy() -> None:
    """64 are asked at a time, and each has its time from when it is asked: the last one waits longer than that."""
    many = Many(takes=0.11)  # 16 rounds: 1.76 s, longer than one shard may take

    async def asked() -> Status:
        return await many.gather.now(1000)

    status = in_no_time(asked())
    assert len(status.sessions) == 1000
    assert away(status) == []
    assert many.most == 64


def test_shards_that_hang_hold_up_none_of_a_thousand() -> None:
    """Once they are known to be away they are asked apart from the others; the answer comes within two seconds."""
    many = Many(takes=0.01)
    many.hung = set(range(0, 1000, 4))

    async def asked() -> tuple[Status, float]:
        await many.gather.latest(1000)
        await asyncio.sleep(30)  # until each has been found out to be away
        many.answered.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        return await many.gather.now(1000), loop.time() - began

    status, took = in_no_time(asked())
    assert away(status) == sorted(many.hung)
    assert len(status.sessions) == 750
    assert len(many.answered) == 750, "none of them is told as it was seen before"
    assert took <= WHOLE + 0.01


def test_a_shard_that_there_was_no_time_to_ask_is_told_as_it_was_last_seen() -> None:
    """A router that is too slow says nothing untrue of shards that are well."""
    many = Many(takes=0.01)

    async def asked() -> tuple[Status, Status, float]:
        await many.gather.latest(1000)
        many.takes = 0.5  # 64 in half a second: most of them are not asked in time
        told = await many.gather.now(1000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        return told, await many.gather.latest(1000), loop.time() - began

    *both, took = in_no_time(asked())
    for status in both:
        assert away(status) == []
        assert len(status.sessions) == 1000
    assert took <= WHOLE + 0.01, "the stream waits no longer either"


def test_the_status_comes_while_shards_hang(tmp_path: Path) -> None:
    """With real sockets: each shard is shown as not reachable, with the reason."""
    with hung() as port:
        program = router(tmp_path, f"http://127.0.0.1:{port}/{{ordinal}}", replicas=5)
        program.up()
        try:
            body = httpx.get(f"{program.url}/v1/watch/status", timeout=60).json()
            assert [shard["reachable"] for shard in body["shards"]] == [False] * 5
            assert "does not answer in time" in body["shards"][0]["error"]
        finally:
            program.kill()


def test_sigterm_ends_it_at_once_though_someone_watches(tmp_path: Path) -> None:
    """An open event stream does not delay the end of the pod."""
    program = router(tmp_path, f"http://127.0.0.1:{free_port()}/{{ordinal}}")
    program.up()
    try:
        with httpx.stream("GET", f"{program.url}/v1/watch/events", timeout=60) as response:
            next(response.iter_raw())
            program.signal(15)
            assert program.wait() == 143
    finally:
        program.kill()


def test_a_dead_shard_does_not_stop_the_stream() -> None:
    """One shard counts, another hangs for 1.5 s at each look: events keep their pace."""

    async def seen() -> list[tuple[float, str]]:
        gather, loop, came = gathering(1), asyncio.get_running_loop(), []
        stream: Any = Events(lambda: gather.latest(2), interval=POLL).response(
            Request({"type": "http", "method": "GET"})
        )
        async for part in stream.body_iterator:
            came.append((loop.time(), part.decode()))
            if len(came) == 7:
                break
        await stream.body_iterator.aclose()
        return came

    _, *came = in_no_time(seen())
    assert all('"shard":1,"reachable":false' in event for _, event in came)
    times = [when for when, _ in came]
    assert times[0] < 2
    assert [after - before for before, after in itertools.pairwise(times)] == pytest.approx([POLL] * 5)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SHARD_URL", "http://x-{foo}", "no other {placeholder}"),
        ("SHARD_URL", "http://x-{ordinal", "with {ordinal}"),
        ("SHARD_URL", "http://x-{ordinal:>9}", "with {ordinal}"),
        ("SHARD_URL", "http://everywhere", "with {ordinal}"),
        ("SHARD_URL", "nfs-watch-{ordinal}:8080", "http:// or https://"),
        ("REPLICAS", "many", "a whole number from 0"),
        ("REPLICAS", "-1", "a whole number from 0"),
        ("STATEFULSET", "NFS_watch", "a-z 0-9"),
        ("PORT", "99999", "from 1 to 65535"),
        ("HOST", "192.0.2.1", "cannot listen there"),
    ],
)
def test_a_wrong_setting_ends_the_program_at_once_and_is_named(
    tmp_path: Path, variable: str, value: str, says: str
) -> None:
    """The operator reads variable, value and what is allowed, without a traceback."""
    settings = {"shard_url": "http://127.0.0.1:1{ordinal}"} | {variable.lower(): value}
    program = router(tmp_path, **settings)
    program.start()
    assert program.wait() == 1
    assert f"NFS_WATCH_{variable}=" in program.log()
    assert says in program.log()
    assert "Traceback" not in program.log()


def test_a_missing_number_of_shards_ends_the_program(tmp_path: Path) -> None:
    """Outside Kubernetes the number cannot be asked for."""
    program = router(tmp_path, "http://127.0.0.1:1{ordinal}", replicas="")
    program.start()
    assert program.wait() == 1
    assert "NFS_WATCH_REPLICAS is not set" in program.log()


def test_a_port_that_is_taken_ends_the_program_and_is_named(tmp_path: Path) -> None:
    with hung() as port:
        program = router(tmp_path, "http://127.0.0.1:1{ordinal}", port=port)
        program.start()
        assert program.wait() == 1
        assert f"NFS_WATCH_PORT={port}: cannot listen there" in program.log()


def test_a_restart_of_the_router_needs_nothing(tmp_path: Path) -> None:
    """The router keeps no state."""
    program = router(tmp_path, f"http://127.0.0.1:{free_port()}/{{ordinal}}")
    for _ in range(2):
        program.up()
        program.kill()
    wait_for(lambda: program.process is not None and program.process.poll() is not None, "its end")

"""Start and stop against the real programs: who gets 201, what is then on disk, and what a kill leaves."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import ContainerClient

from tests.demo.site import Site, files_in
from tests.endpoint.faults import Hold, Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.programs import Server, wait_for
from uploader.cluster.placement import rank

MIB = 1 << 20


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as it:
        yield it


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Site]:
    """Two shards with room for many sessions."""
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("roomy"), stack, endpoint.connection_string, max_sessions=1000)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Site]:
    """Two shards with room for one session each, as is the default."""
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("narrow"), stack, endpoint.connection_string)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plan no faults and leave no session after the test."""
    yield
    if "endpoint" in request.fixturenames:
        request.getfixturevalue("endpoint").faults.clear()
    for name in {"roomy", "narrow"} & set(request.fixturenames):
        site: Site = request.getfixturevalue(name)
        for session in site.call("status")["sessions"]:
            site.ask("stop", session=session["session"], drain=False)
        wait_for(lambda site=site: not site.records(), "the records to go")


def named(first: int, number: int = 0) -> str:
    """Return a name whose rank begins with this shard."""
    return [name for name in (f"run-{n}" for n in range(100)) if rank(name, 2)[0] == first][number]


def at_once(*calls: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """Make these calls at the same instant."""
    barrier = threading.Barrier(len(calls))

    def call(one: Callable[[], httpx.Response]) -> httpx.Response:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def codes(replies: list[httpx.Response]) -> list[tuple[int, str]]:
    return sorted((reply.status_code, reply.json().get("code", "")) for reply in replies)


def record(site: Site, name: str) -> dict[str, Any]:
    return dict(json.loads((site.share / f".nfs-watch/sessions/{name}.json").read_bytes()))


# Two at once


@pytest.mark.parametrize("ways", [(0, 0), (0, 1), (None, None), (None, 1)])
def test_two_starts_of_one_name_at_one_instant_give_one_201_and_one_409(
    roomy: Site, ways: tuple[int | None, int | None]
) -> None:
    """On one shard, on two, and through the router (None): two callers never both own a session."""

    def start(name: str, way: int | None) -> httpx.Response:
        if way is None:
            return roomy.ask("start", session=name)
        return roomy.ask("start", roomy.shards[way], session=name, shard=way)

    for number in range(8):
        replies = at_once(*(partial(start, f"twice-{number}", way) for way in ways))
        assert codes(replies) == [(201, ""), (409, "already-active")]
        (started,) = [reply.json() for reply in replies if reply.status_code == 201]
        kept = record(roomy, started["session"])
        assert (kept["owner"], kept["state"]) == (started["shard"], "active")
    assert len(roomy.call("status")["sessions"]) == len(roomy.records()) == 8


def test_a_start_of_an_active_session_is_409_on_every_way(roomy: Site) -> None:
    """The record is unchanged, and the answer names the owner."""
    name = named(1)
    assert roomy.call("start", session=name)["shard"] == 1
    before = record(roomy, name)
    for at in (None, *roomy.shards):
        reply = roomy.ask("start", at, session=name)
        assert codes([reply]) == [(409, "already-active")]
        assert reply.json()["shard"] == 1
    assert record(roomy, name) == before


# Owners


def test_a_shard_answers_421_for_what_another_owns_and_the_router_follows(roomy: Site) -> None:
    """A caller who asks the wrong shard learns the right one; through the router nobody notices."""
    mine, other = roomy.shards
    reply = roomy.ask("start", mine, session=named(1))
    assert codes([reply]) == [(421, "not-owner")]
    assert reply.json()["shard"] == 1
    assert not roomy.records()
    # Placed on the second in its rank: the record decides, not the rank.
    assert roomy.ask("start", other, session=named(0), shard=1).status_code == 201
    for call in ("status?session=" + named(0), "stop"):
        fields = {"session": named(0)} if call == "stop" else {}
        reply = roomy.ask(call, mine, **fields)
        assert codes([reply]) == [(421, "not-owner")]
        assert reply.json()["shard"] == 1
    assert roomy.call("status?session=" + named(0))["sessions"][0]["shard"] == 1
    assert roomy.call("stop", session=named(0))["shard"] == 1


def test_a_session_without_a_name_gets_one_that_sorts_by_time(roomy: Site) -> None:
    """The caller may leave naming to the shard and gets the name in the answer."""
    names = [str(roomy.ask("start", at, extensions=[]).json()["session"]) for at in (None, roomy.shards[1], None)]
    assert names == sorted(names)
    assert all(name.startswith("00-session-") and len(name) == 37 for name in names)
    assert all((roomy.share / name).is_dir() for name in names)


def test_full_shards_say_what_runs_and_the_next_in_rank_is_asked(narrow: Site) -> None:
    """N shards carry N sessions, whatever their names; the refusal lists what to stop."""
    first, second, third = (named(0, number) for number in range(3))
    assert narrow.call("start", session=first)["shard"] == 0
    full = narrow.ask("start", narrow.shards[0], session=second)
    assert codes([full]) == [(409, "shard-full")]
    assert full.json()["sessions"] == [first]
    assert narrow.call("start", session=second)["shard"] == 1
    full = narrow.ask("start", session=third)
    assert codes([full]) == [(409, "shard-full")]
    assert full.json()["sessions"] == [first, second]
    assert narrow.call("stop", session=first, drain=False)["state"] == "stopped"
    assert narrow.call("start", session=third)["shard"] == 0


# Ends


def test_a_drain_finishes_what_is_there_and_a_start_meanwhile_is_409(narrow: Site, endpoint: Endpoint) -> None:
    """Every file is stored and deleted before the session ends; until then its name is taken."""
    name = named(0)
    gate = threading.Event()
    endpoint.faults.add(Hold(gate), Operation.PUT_BLOB)
    narrow.call("start", session=name)
    for number in range(20):
        (narrow.share / name / f"{number}.bin").write_bytes(b"x")
    reply = narrow.ask("stop", session=name)
    assert (reply.status_code, reply.json()["state"]) == (202, "draining")
    assert record(narrow, name)["state"] == "draining"
    assert codes([narrow.ask("start", session=name)]) == [(409, "already-active")]
    assert narrow.ask("stop", session=name).status_code == 202
    gate.set()
    wait_for(lambda: not narrow.records(), "the session to end")
    assert not files_in(narrow.share / name)
    assert {f"{name}/{number}.bin" for number in range(20)} <= endpoint.store.blobs("uploads").keys()
    reply = narrow.ask("stop", session=name)
    assert (reply.status_code, reply.json()["state"]) == (200, "ended")


def test_a_stop_without_drain_gives_claims_back_and_a_new_start_goes_on(narrow: Site, endpoint: Endpoint) -> None:
    """The answer comes when every file has its plain name again; the next start sends them."""
    name = named(1)
    folder = narrow.share / name
    folder.mkdir()
    content = os.urandom(40 * MIB)
    (folder / "large.bin").write_bytes(content)
    refused = endpoint.faults.add(Refuse(503), Operation.PUT_BLOCK, skip=2, times=1_000_000)
    narrow.call("start", session=name)
    wait_for(lambda: refused.hits, "some blocks to be sent and others refused")
    assert files_in(folder) == ["large.bin.processing"]
    reply = narrow.ask("stop", session=name, drain=False)
    assert (reply.status_code, reply.json()["state"]) == (200, "stopped")
    assert files_in(folder) == ["large.bin"]
    assert f"{name}/large.bin" not in endpoint.store.blobs("uploads")
    endpoint.faults.clear()
    wait_for(lambda: not narrow.records(), "the record to go")
    assert files_in(folder) == ["large.bin"]
    narrow.call("start", session=name)
    wait_for(lambda: not files_in(folder), "all to be sent")
    assert endpoint.store.blob("uploads", f"{name}/large.bin").content == content


# Kills


def test_each_201_survives_a_kill_at_any_moment_and_is_resumed_with_no_call(tmp_path: Path, endpoint: Endpoint) -> None:
    """A caller who got 201 need not call again after a crash: the session runs."""
    share = tmp_path / "share"
    share.mkdir()
    shard = programs.shard(tmp_path, share, endpoint.connection_string, max_sessions=1000)
    folder = share / ".nfs-watch/sessions"
    started: list[str] = []
    try:
        shard.up()
        for number in range(3):
            burst = threading.Thread(target=_starts, args=(shard, f"burst-{number}", started))
            burst.start()
            goal = len(started) + 10
            wait_for(lambda goal=goal: len(started) >= goal, "some starts", interval=0.001)
            shard.kill()
            burst.join()
            records = {path.stem: json.loads(path.read_bytes()) for path in folder.glob("*.json")}
            assert set(started) <= records.keys()
            shard.up()
            wait_for(lambda known=set(records): _sessions(shard) == known, "all to be resumed")
        assert all(path.suffix == ".json" for path in folder.iterdir())  # what was half-written is gone
        for name in started[::7]:
            (share / name / "late.bin").write_bytes(b"late")
        for name in started[::7]:
            wait_for(lambda name=name: f"{name}/late.bin" in endpoint.store.blobs("uploads"), "a late file")
    finally:
        shard.kill()


def _sessions(shard: Server) -> set[str]:
    answer = httpx.get(f"{shard.url}/v1/watch/status", timeout=60)
    return {one["session"] for one in answer.json()["sessions"]}


def _starts(shard: Server, prefix: str, started: list[str]) -> None:
    """Start sessions until the shard is gone."""
    with httpx.Client(base_url=shard.url, timeout=60) as client:
        for number in range(10_000):
            try:
                reply = client.post("/v1/watch/start", json={"session": f"{prefix}-{number}"})
            except httpx.HTTPError:
                return
            assert reply.status_code == 201
            started.append(reply.json()["session"])


def test_a_draining_session_goes_on_draining_after_a_kill(narrow: Site, endpoint: Endpoint) -> None:
    """The stop is not forgotten, and the session ends by itself."""
    name = named(0)
    endpoint.faults.add(Refuse(503), Operation.PUT_BLOB, times=1_000_000)
    narrow.call("start", session=name)
    (narrow.share / name / "a.bin").write_bytes(b"a")
    narrow.call("stop", session=name)
    narrow.shards[0].kill()
    endpoint.faults.clear()
    narrow.shards[0].up()
    wait_for(lambda: not narrow.records(), "the session to end")
    assert endpoint.store.blob("uploads", f"{name}/a.bin").content == b"a"
    assert not files_in(narrow.share / name)


# The container


def test_a_missing_container_is_created(tmp_path: Path) -> None:
    """A first installation needs no step in Azure beside the account; an existing container is used as it is."""
    (tmp_path / "share").mkdir()
    with programs.azurite(tmp_path) as connection:
        shard = programs.shard(tmp_path, tmp_path / "share", connection, container="made-by-us")
        try:
            shard.up()
            with ContainerClient.from_connection_string(connection, "made-by-us") as container:
                assert container.exists()
            shard.kill()
            shard.up()  # and one that exists is taken as it is
        finally:
            shard.kill()


def test_a_container_that_is_missing_and_may_not_be_created_ends_the_program_with_1(tmp_path: Path) -> None:
    """The last line names container and refusal; where the container exists, no such permission is needed."""
    (tmp_path / "share").mkdir()
    with Endpoint() as endpoint:
        shard = programs.shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        forbidden = Refuse(403, "AuthorizationPermissionMismatch")
        endpoint.faults.add(forbidden, Operation.CREATE_CONTAINER, times=1000)
        shard.start()
        assert shard.wait() == 1
        lines = [json.loads(line) for line in shard.log().splitlines()]
        (last,) = [line for line in lines if line["level"] == "critical"]
        assert last == lines[-1]
        assert all(word in last["reason"] for word in ("'uploads'", "403", "AuthorizationPermissionMismatch"))
        # Where it exists, the permission to create it is not needed.
        endpoint.store.create("uploads")
        try:
            shard.up()
        finally:
            shard.kill()

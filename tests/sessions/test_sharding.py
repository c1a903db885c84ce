"""The router before real shards: placement, races, a shard that hangs, and shards that are asked directly."""

import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.programs import wait_for
from uploader.cluster.placement import rank

SHARDS = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("sharding"), SHARDS) as it:
        yield it


@pytest.fixture(autouse=True)
def _clean(site: Cluster) -> Iterator[None]:
    yield
    site.clear()


def names(first: int, count: int) -> list[str]:
    """Return names that all rank this shard first."""
    found = (f"run-{number}" for number in range(1000))
    return [name for name in found if rank(name, SHARDS)[0] == first][:count]


def status(url: str, **query: str) -> httpx.Response:
    return httpx.get(f"{url}/v1/watch/status", params=query, timeout=60)


def post(url: str, call: str, **fields: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/watch/{call}", json=fields, timeout=60)


def owner(site: Cluster, name: str) -> int:
    record = json.loads((site.root / f".nfs-watch/sessions/{name}.json").read_text())
    return int(record["owner"])


def test_as_many_sessions_as_shards_run_side_by_side_whatever_their_names(site: Cluster) -> None:
    """Names that rank the same shard first still use all shards; one more session is refused with the reason."""
    *fitting, one_more = names(0, SHARDS + 1)
    placed = [post(site.router.url, "start", session=name).json()["shard"] for name in fitting]
    assert placed[0] == 0
    assert sorted(placed) == [0, 1, 2]
    refused = post(site.router.url, "start", session=one_more)
    assert (refused.status_code, refused.json()["code"]) == (409, "shard-full")
    assert sorted(refused.json()["sessions"]) == sorted(fitting)
    shown = status(site.router.url).json()
    assert sorted(one["session"] for one in shown["sessions"]) == sorted(fitting)
    assert all(len(shard["sessions"]) == 1 for shard in shown["shards"])


def test_of_many_starts_of_one_name_exactly_one_wins(site: Cluster) -> None:
    """Sixteen starts at one moment, through the router and directly: one 201, one owner, one session."""
    answers: list[httpx.Response] = []
    ready = threading.Barrier(4 * (SHARDS + 1))

    def start(url: str, **fields: object) -> None:
        ready.wait()
        answers.append(post(url, "start", session="contested", **fields))

    asked: list[tuple[str, dict[str, object]]] = [(site.router.url, {})]
    asked += [(shard.url, {"shard": ordinal}) for ordinal, shard in enumerate(site.shards)]
    threads = [threading.Thread(target=start, args=(url,), kwargs=fields) for url, fields in asked * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * (len(threads) - 1)
    (won,) = [answer.json()["shard"] for answer in answers if answer.status_code == 201]
    assert owner(site, "contested") == won
    shown = status(site.router.url).json()
    assert [(one["session"], one["shard"]) for one in shown["sessions"]] == [("contested", won)]


def test_a_session_that_is_not_where_its_name_ranks_is_found_and_stopped(site: Cluster) -> None:
    """The record names the owner: shards answer 421, and the router follows."""
    (name,) = names(0, 1)
    assert post(site.router.url, "start", session=name, shard=2).json()["shard"] == 2
    direct = status(site.shards[0].url, session=name)
    assert (direct.status_code, direct.json()["code"], direct.json()["shard"]) == (421, "not-owner", 2)
    through = status(site.router.url, session=name)
    assert through.json()["sessions"][0]["shard"] == 2
    assert post(site.shards[1].url, "stop", session=name).status_code == 421
    assert post(site.router.url, "stop", session=name).status_code in {200, 202}


def test_a_start_that_a_hung_shard_does_late_makes_no_second_session(site: Cluster) -> None:
    """The router gave the session to the next shard; the hung one then reads the request and must answer 409."""
    (name,) = names(1, 1)
    site.shards[1].kill()
    with socket.create_server(("127.0.1.1", site.shards[1].port)) as hung:
        answer = post(site.router.url, "start", session=name)
        request = read(hung.accept()[0])
    site.shards[1].up()
    assert answer.status_code == 201, answer.text
    won = answer.json()["shard"]
    assert won == rank(name, SHARDS)[1]
    assert request.startswith(b"POST /v1/watch/start")
    assert name.encode() in request
    late = socket.create_connection(("127.0.1.1", site.shards[1].port))
    late.sendall(request)
    head, _, body = read(late).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 409")
    assert (json.loads(body)["code"], json.loads(body)["shard"]) == ("already-active", won)
    assert status(site.shards[1].url).json()["sessions"] == []
    assert owner(site, name) == won


def read(connection: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    connection.settimeout(60)
    with connection, connection.makefile("rb") as file:
        return file.read()


def test_a_dead_owner_is_named_and_its_session_goes_on_when_it_is_back(site: Cluster) -> None:
    """A stop gets 503 with the owner's number, and files that came during the outage are sent."""
    (name,) = names(2, 1)
    folder = site.start(name)
    site.shards[2].kill()
    refused = post(site.router.url, "stop", session=name)
    assert refused.status_code == 503
    assert "shard 2 owns the session" in refused.json()["detail"]
    assert "retry-after" in refused.headers
    (folder / "late.bin").write_bytes(b"late")
    site.shards[2].up()

    def completed() -> bool:
        answer = status(site.router.url, session=name)
        return answer.status_code == 200 and answer.json()["sessions"][0]["files"]["completed"] == 1

    wait_for(completed, "the file that came during the outage")

"""A session's end, its files and its result over HTTP, with real programs that are killed meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.endpoint.server import Endpoint
from tests.support.cluster import Cluster, cluster
from tests.support.programs import wait_for
from uploader.version import VERSION

LONG = 200.0  # seconds; bounds a hang only


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Cluster]:
    with Endpoint() as endpoint, cluster(tmp_path, 1, endpoint.connection_string) as it:
        yield it


def get(url: str, call: str) -> httpx.Response:
    return httpx.get(f"{url}/v1/watch/{call}", timeout=LONG, trust_env=False)


def until_ended(site: Cluster, name: str) -> dict[str, Any]:
    """Wait as a client does: asked again after 503."""

    def ended() -> dict[str, Any] | None:
        answer = get(site.router.url, f"status?session={name}&wait=60")
        assert answer.status_code in {200, 503}, answer.text
        (one,) = answer.json()["sessions"] if answer.status_code == 200 else [{"state": "?"}]
        return one if one["state"] == "ended" else None

    found: dict[str, Any] = wait_for(ended, "the end of the session", LONG)
    return found


def test_whoever_waits_gets_the_result_through_a_kill_and_it_is_exact(site: Cluster) -> None:
    """Counts do not fall, absence is never an answer, and what was sent has a receipt."""
    folder = site.start("run")
    for number in range(20):
        (folder / f"{number:02}.bin").write_bytes(b"x" * number)
    (folder / "bad.").write_bytes(b"no blob can have this name")
    wait_for(lambda: len(list(folder.glob("*.bin*"))) < 15, "some files to be swept", LONG)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(until_ended, site, "run")
        site.shards[0].kill()
        assert get(site.router.url, "status?session=run").status_code == 503
        site.shards[0].up()
        assert httpx.post(f"{site.router.url}/v1/watch/stop", json={"session": "run"}, timeout=60).status_code == 202
        one = waiting.result()
    result = one["result"]
    assert result["files"] == {"sent": 20, "replaced": 0, "failed": 1, "left_behind": 1}
    assert result["bytes"] == sum(range(20))
    assert [left["path"] for left in result["left_behind"]] == ["bad."]
    assert result["drained"]
    assert get(site.router.url, "results").json() == {"results": [result], "next": None}
    again = httpx.post(f"{site.router.url}/v1/watch/stop", json={"session": "run"}, timeout=60)
    assert (again.status_code, again.json()["state"]) == (200, "ended")


def test_every_failed_file_can_be_seen_in_pages(site: Cluster) -> None:
    """However many they are: each once, in an order that does not change."""
    folder = site.start("run")
    for number in range(120):
        (folder / f"{number:03}.").write_bytes(b"no blob can have this name")
    wait_for(
        lambda: get(site.router.url, "status?session=run").json()["sessions"][0]["files"]["failed"] == 120,
        "all to have failed",
        LONG,
    )
    seen, after = [], ""
    while True:
        page = get(site.router.url, f"files?session=run&state=failed&limit=50{after}").json()
        seen += [one["path"] for one in page["files"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == [f"{number:03}." for number in range(120)]
    (one,) = get(site.router.url, "files?session=run&path=007.").json()["files"]
    assert (one["state"], one["reason"]) == (
        "failed",
        "a part of its path ends with a dot, which a blob's name must not",
    )
    assert get(site.router.url, "files?session=run&path=nobody").json()["code"] == "unknown-file"


@pytest.mark.parametrize(
    "call",
    ["status?sesion=run", "status?wait=5", "status?session=run&wait=61", "files", "files?session=run&state=lost",
     "files?session=run&limit=0", "files?session=run&after=x", "results?session=run", "results?after=x",
     "status?session=a&session=b", "events?session=run"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(site: Cluster, call: str) -> None:
    """It is never passed over, as if it had been obeyed."""
    site.start("run")
    for server in (site.router, site.shards[0]):
        assert get(server.url, call).status_code == 400, server.url


def test_a_shard_that_is_away_keeps_its_last_known_sessions(site: Cluster) -> None:
    """The router says since when it is away, and as of when its sessions are known."""
    site.start("run")
    (here,) = get(site.router.url, "status").json()["sessions"]
    site.shards[0].kill()
    gone = get(site.router.url, "status").json()
    assert [one["session"] for one in gone["sessions"]] == [here["session"]]
    assert gone["sessions"][0]["as_of"]
    assert gone["shards"][0]["since"]
    assert not gone["shards"][0]["reachable"]


def post(site: Cluster, call: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{site.router.url}/v1/watch/{call}", json=fields, timeout=LONG, trust_env=False)


def test_a_shard_tells_where_its_files_go_its_version_and_whether_it_takes_another_session(site: Cluster) -> None:
    """Whoever looks at the status sees store, container and prefix, and is not told that a shard with room is busy."""
    (shard,) = get(site.router.url, "status").json()["shards"]
    assert shard["room"] == 1
    assert shard["version"] == VERSION
    assert shard["store"]["endpoint"].startswith("http://")
    assert (shard["store"]["container"], shard["store"]["prefix"]) == ("uploads", "")
    folder = site.start("run", extensions=[".bin"])
    status = get(site.router.url, "status").json()
    assert status["shards"][0]["room"] == 0
    assert status["sessions"][0]["extensions"] == [".bin"]
    (folder / "kept.bin.completed").write_bytes(b"it was never sent")  # keeps the stopped session there
    assert post(site, "stop", session="run").status_code == 202
    wait_for(lambda: get(site.router.url, "status").json()["shards"][0]["room"] == 1, "room for another", LONG)
    assert get(site.router.url, "status?session=run").json()["sessions"][0]["state"] == "stopped"


def test_failed_files_are_tried_again_when_somebody_asks_for_it(site: Cluster) -> None:
    """All of them or one; what is not there, or has stopped, is refused with the reason."""
    folder = site.start("run")
    for number in range(3):
        (folder / f"{number}.bin").symlink_to("nowhere")
    page = f"{site.router.url}/v1/watch/files?session=run&state=failed"
    wait_for(lambda: len(httpx.get(page, timeout=LONG).json()["files"]) == 3, "the failures", LONG)
    answer = post(site, "retry", session="run", path="1.bin")
    assert (answer.status_code, answer.json()) == (202, {"session": "run", "shard": 0, "files": 1})
    assert post(site, "retry", session="run").json()["files"] == 3
    assert post(site, "retry", session="run", path="no.bin").json()["code"] == "unknown-file"
    assert post(site, "retry", session="other").json()["code"] == "unknown-session"
    assert post(site, "stop", session="run", drain=False).status_code == 200
    assert post(site, "retry", session="run").json()["code"] == "not-running"

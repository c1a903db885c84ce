"""Foreign web pages, sent through the browser of somebody who reaches the programs: what a browser would send, to real programs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.programs import Server, router
from uploader.web.foreign import Names

START, STATUS, EVENTS = "/v1/watch/start", "/v1/watch/status", "/v1/watch/events"
EVIL = "http://evil.example"
OWN = "uploads.example.org,.lab.example.org"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("foreign"), 1, max_sessions=50, names=OWN) as it:
        yield it


@pytest.fixture(scope="module")
def named(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A router with names of its own."""
    url = f"http://127.0.1.{{ordinal}}:{site.shards[0].port}"
    server = router(tmp_path_factory.mktemp("named"), url, names=OWN)
    server.up("/livez")
    yield server
    server.kill()


@pytest.fixture(params=["shard", "router"])
def program(site: Cluster, named: Server, request: pytest.FixtureRequest) -> Server:
    return site.shards[0] if request.param == "shard" else named


def send(server: Server, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
    """Send as a browser does; `_` stands for `-` in a header's name."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if body is None else json.dumps(body)
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream(method, server.url + path, content=content, headers=named) as answer,
    ):
        if not answer.headers["content-type"].startswith("text/event-stream"):
            answer.read()
        return answer


def refused(answer: httpx.Response, *said: str) -> None:
    assert answer.status_code == 403, answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == "foreign"
    assert all(word in problem["detail"] for word in said), problem


def test_a_page_from_elsewhere_starts_and_stops_nothing(program: Server) -> None:
    """A form or fetch() of any web page sends JSON as text/plain, without asking first; the browser adds Origin."""
    send(program, "POST", START, {"session": "mine"}).raise_for_status()
    for origin in (EVIL, "https://evil.example", "null", f"http://127.0.0.1:{program.port + 1}", "http://[", "file://"):
        headers = {"Origin": origin, "Content_Type": "text/plain"}
        refused(send(program, "POST", START, {"session": "theirs"}, **headers), "Origin", origin)
        refused(send(program, "POST", "/v1/watch/stop", {"session": "mine"}, **headers), "Origin")
    assert "theirs" not in send(program, "GET", STATUS).text
    assert '"mine"' in send(program, "GET", STATUS).text
    send(program, "POST", "/v1/watch/stop", {"session": "mine", "drain": False}).raise_for_status()


def test_a_page_from_elsewhere_reads_no_stream(program: Server) -> None:
    """An EventSource of another site would hold a connection, and count what is there."""
    refused(send(program, "GET", EVENTS, Origin=EVIL), "Origin")
    assert send(program, "GET", EVENTS, Origin=program.url).status_code == 200


@pytest.mark.parametrize("site_header", ["cross-site", "same-site"])
def test_a_browser_that_says_where_a_request_comes_from_is_believed(program: Server, site_header: str) -> None:
    """Over https and on this machine a browser says so even where it sends no Origin: images, scripts, frames."""
    for mode, dest in (("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty")):
        headers = {"Sec_Fetch_Site": site_header, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}
        refused(send(program, "GET", STATUS, **headers), "Sec-Fetch-Site")
    posted = {"Sec_Fetch_Site": site_header, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    refused(send(program, "POST", START, {"session": "theirs"}, **posted), "Sec-Fetch-Site")


def test_a_link_to_the_status_page_may_be_followed_from_anywhere(named: Server) -> None:
    """Dashboards and mails link to it; the page that holds the link sees nothing of it."""
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert send(named, "GET", "/", **followed).status_code == 200


def test_a_name_that_a_stranger_can_have_is_refused(program: Server) -> None:
    """DNS rebinding: evil.example comes to mean this machine, and the browser takes the page for the service's own."""
    host = f"evil.example:{program.port}"
    for method, path, body in (("GET", STATUS, None), ("POST", START, {"session": "theirs"}), ("GET", EVENTS, None)):
        refused(send(program, method, path, body, Host=host, Origin=f"http://{host}"), "Host", host, "NFS_WATCH_NAMES")
        refused(send(program, method, path, body, Host=host), "Host")
    assert "theirs" not in send(program, "GET", STATUS).text


def test_the_programs_own_page_and_programs_without_a_browser_are_served(program: Server) -> None:
    """The status page sends its own Origin; curl and the local app send none; the page may have any of the site's names."""
    for number, host in enumerate(("jetson", "jetson.local:30080", "uploads.example.org", "a.lab.example.org:8443")):
        session = f"own-{number}-{program.port}"
        answer = send(program, "POST", START, {"session": session}, Host=host, Origin=f"http://{host}")
        assert answer.status_code == 201, answer.text
        own = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}
        assert send(program, "GET", STATUS, Host=host, **own).status_code == 200
        send(program, "POST", "/v1/watch/stop", {"session": session, "drain": False}).raise_for_status()
    assert send(program, "GET", STATUS, Sec_Fetch_Site="none").status_code == 200


def test_behind_a_proxy_the_sites_own_name_counts_as_the_page(program: Server) -> None:
    """A reverse proxy may change Host; then the Origin is compared with the names that the site has given."""
    answer = send(program, "GET", STATUS, Host="nfs-watch-router:8080", Origin="https://uploads.example.org")
    assert answer.status_code == 200
    refused(send(program, "GET", STATUS, Host="nfs-watch-router:8080", Origin="https://other.example.org"), "Origin")


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.7",
        "fe80::1",
        "localhost",
        "nfs-watch-12.nfs-watch",
        "nfs-watch-router.lab",
        "nfs-watch-router.lab.svc",
        "nfs-watch-router.lab.svc.cluster.local",
        "jetson.home.arpa",
    ],
)
def test_names_that_only_a_network_can_give_are_known(host: str) -> None:
    """Everything that the documents tell a person to type, and what the router uses, works without a setting."""
    assert Names((), "nfs-watch", "lab").private(host)


@pytest.mark.parametrize(
    "host", ["evil.lab", "a.b.nfs-watch", "1.2.3.4.example", "local.example", "x.nfs-watch", "nfs-watch-router.dev"]
)
def test_other_names_are_not(host: str) -> None:
    """Only whole names and whole endings count."""
    assert not Names((), "nfs-watch", "lab").private(host)


@pytest.mark.parametrize("value", ["http://a.example", "a.example:80", "a b", "a..b", "*.example.org"])
def test_a_wrong_name_is_refused_at_the_start(value: str, tmp_path: Path) -> None:
    """Whoever writes an address in place of a name learns it at once."""
    server = router(tmp_path, "http://shard-{ordinal}", names=value)
    server.start()
    assert server.wait() == 1
    assert "NFS_WATCH_NAMES" in server.log()

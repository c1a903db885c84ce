"""A shard starts without network: it serves at once, says what it waits for, and goes on by itself."""

import threading
from pathlib import Path

import httpx
import orjson

from tests.endpoint.faults import Hold, Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.programs import KEY, Server, connection_string, shard, wait_for


def ask(server: Server, path: str) -> httpx.Response:
    return httpx.get(server.url + path, timeout=60, trust_env=False)


def call(server: Server, what: str, **fields: object) -> int:
    return httpx.post(f"{server.url}/v1/watch/{what}", json=fields, timeout=60, trust_env=False).status_code


def waits_for(server: Server) -> str:
    return str(ask(server, "/v1/watch/status").json()["shards"][0].get("waits_for", ""))


def test_a_store_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Starts and stops are taken while the first question has no answer; no file is sent before that answer."""
    (tmp_path / "share/run").mkdir(parents=True)
    (tmp_path / "share/run/x.bin").write_bytes(b"content")
    gate = threading.Event()
    with Endpoint() as endpoint:
        endpoint.store.create("uploads")
        held = endpoint.faults.add(Hold(gate), Operation.GET_BLOB)
        server = shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        try:
            server.up("/livez")
            wait_for(lambda: held.hits, "the question to be asked")
            ready = ask(server, "/readyz")
            assert (ready.status_code, ready.text) == (503, "not ready: the blob store has not been asked yet\n")
            assert waits_for(server)
            assert call(server, "start", session="other") == 201
            assert call(server, "stop", session="other", drain=False) == 200
            assert call(server, "start", session="run") == 201
            gate.set()
            wait_for(lambda: "run/x.bin" in endpoint.store.blobs("uploads"), "the file to be sent")
            server.ready()
            assert not waits_for(server)
        finally:
            gate.set()
            server.kill()
        asked, sent = endpoint.log.of(Operation.GET_BLOB)[0], endpoint.log.of(Operation.PUT_BLOB)[0]
        assert asked.ended <= sent.started
    assert KEY not in server.log()


def test_an_outage_at_the_start_is_told_once_and_passes_by_itself(tmp_path: Path) -> None:
    """The reason is on /readyz and in the status; no file fails meanwhile."""
    (tmp_path / "share/run").mkdir(parents=True)
    (tmp_path / "share/run/x.bin").write_bytes(b"content")
    with Endpoint() as endpoint:
        endpoint.store.create("uploads")
        away = endpoint.faults.add(Refuse(503), Operation.GET_BLOB, times=10_000)
        server = shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        try:
            server.up("/livez")
            assert call(server, "start", session="run") == 201
            wait_for(lambda: "503 ServerBusy" in waits_for(server), "the reason in the status")
            assert "503 ServerBusy" in ask(server, "/readyz").text
            wait_for(lambda: away.hits > 1, "the second question")
            endpoint.faults.clear()
            wait_for(lambda: "run/x.bin" in endpoint.store.blobs("uploads"), "the file to be sent")
        finally:
            server.kill()
    events = [orjson.loads(line)["event"] for line in server.log().splitlines()]
    assert (events.count("store.away"), events.count("store.back"), events.count("file.failed")) == (1, 1, 0)


def test_a_name_that_nobody_knows_is_waited_for(tmp_path: Path) -> None:
    """DNS is away: no answer says no, so the process lives and says what it waits for."""
    (tmp_path / "share").mkdir()
    server = shard(tmp_path, tmp_path / "share", connection_string("http://no.such.host.invalid/a"))
    try:
        server.up("/livez")
        wait_for(lambda: "no.such.host.invalid" in waits_for(server), "the name in the status")
        assert call(server, "start", session="run") == 201
        assert ask(server, "/livez").status_code == 200
    finally:
        server.kill()
    assert KEY not in server.log()

"""The store goes away in mid-run and comes back: uploads go on by themselves, nothing is lost, each fact is told once."""

import itertools
import os
import threading
from pathlib import Path

import httpx
import orjson

from tests.endpoint.faults import Hold
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.programs import KEY, Server, free_port, shard, wait_for
from uploader.telemetry import names


def events(server: Server, event: str) -> list[dict[str, object]]:
    lines = [line for line in server.log().splitlines(keepends=True) if line.endswith("\n")]
    return [said for said in map(orjson.loads, lines) if said["event"] == event]


def produce(folder: Path, *sizes: int, word: str) -> dict[str, bytes]:
    """Make files that are finished: written elsewhere and moved into place."""
    made = {}
    for number, size in enumerate(sizes):
        name = f"{word}-{number}.bin"
        made[f"run/{name}"] = os.urandom(size)
        (folder.parent / f"{name}.new").write_bytes(made[f"run/{name}"])
        (folder.parent / f"{name}.new").rename(folder / name)
    return made


def test_a_store_that_goes_away_in_mid_run_loses_nothing(tmp_path: Path) -> None:
    """Requests break in the middle, nobody listens, and later the store is there again with what it had."""
    folder = tmp_path / "share/run"
    folder.mkdir(parents=True)
    gate = threading.Event()
    with Endpoint(port=free_port()) as endpoint:
        server = shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        try:
            server.up()
            started = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run"}, timeout=60, trust_env=False)
            assert started.status_code == 201
            held = endpoint.faults.add(Hold(gate), Operation.PUT_BLOB, Operation.PUT_BLOCK, skip=2, times=1000)
            files = produce(folder, 20 << 20, *itertools.repeat(1000, 8), word="before")
            wait_for(lambda: held.hits >= 3, "requests to be in flight")
            endpoint.faults.clear()
            endpoint.go_away()
            gate.set()
            wait_for(lambda: events(server, names.STORE_AWAY), "the outage to be seen")
            files |= produce(folder, 9 << 20, *itertools.repeat(1000, 8), word="meanwhile")
            wait_for(lambda: b"waits_for" in status(server), "the reason in the status")
            ready = httpx.get(f"{server.url}/readyz", timeout=60, trust_env=False)
            assert ready.status_code == 200, "an outage later on leaves the shard ready: it takes starts and stops"
            assert "Connection refused" in ready.text
            endpoint.come_back()
            wait_for(lambda: endpoint.store.blobs("uploads").keys() == files.keys(), "all blobs")
            wait_for(lambda: not list(folder.iterdir()), "all files to be swept")
            wait_for(lambda: b"waits_for" not in status(server), "the status without a reason")
        finally:
            gate.set()
            server.kill()
        assert {name: blob.content for name, blob in endpoint.store.blobs("uploads").items()} == files
    assert [len(events(server, event)) for event in (names.STORE_AWAY, names.STORE_BACK)] == [1, 1]
    assert not events(server, names.PROCESS_ENDS)
    failed = events(server, names.FILE_FAILED)
    assert not any("meanwhile" in str(said["path"]) for said in failed), "files were tried in vain"
    assert {said["attempt"] for said in failed} <= {1}
    assert KEY not in server.log()


def status(server: Server) -> bytes:
    return httpx.get(f"{server.url}/v1/watch/status", timeout=60, trust_env=False).content

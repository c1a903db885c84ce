"""What a producer does with a name, against a real shard: the settings reach their parts, and every byte is stored."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.endpoint.server import Endpoint
from tests.support.programs import Server, shard, wait_for

Start = Callable[..., Server]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as it:
        yield it


@pytest.fixture
def start(tmp_path: Path, endpoint: Endpoint) -> Iterator[Start]:
    """Start a shard with these settings, and a session `run`."""
    with ExitStack() as stack:

        def started(**settings: Any) -> Server:
            server = shard(tmp_path, tmp_path / "share", endpoint.connection_string, **settings)
            stack.callback(server.kill)
            server.up()
            post(server, "start")
            return server

        (tmp_path / "share").mkdir()
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "share" / "run"


def post(server: Server, call: str) -> None:
    reply = httpx.post(f"{server.url}/v1/watch/{call}", json={"session": "run"}, timeout=60, trust_env=False)
    assert reply.status_code < 300, reply.text


def drained(server: Server, folder: Path) -> None:
    post(server, "stop")
    record = folder.parent / ".nfs-watch" / "sessions" / "run.json"
    wait_for(lambda: not record.exists(), "the drain to end")


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / ".arriving").write_bytes(content)
    (folder / ".arriving").rename(folder / name)


def stored(endpoint: Endpoint, name: str) -> bytes:
    held = endpoint.store.blobs("uploads").get(f"run/{name}")
    return held.content if held else b""


@pytest.mark.parametrize("closes", [True, False])
def test_every_line_of_a_logger_that_reopens_is_stored(
    start: Start, endpoint: Endpoint, folder: Path, closes: bool
) -> None:
    """In the blob or in a snapshot, however the lines fall on the files that `>>` makes."""
    server = start(close_write=closes)
    lines = [f"line {number}\n".encode() for number in range(20)]
    for number, line in enumerate(lines):
        with (folder / "log").open("ab") as log:
            log.write(line)
        if number % 5 == 4:
            wait_for(lambda last=line: last in kept(endpoint), "the line to be stored")
    drained(server, folder)
    assert sorted(set(kept(endpoint))) == sorted(lines)
    assert os.listdir(folder) == []


def kept(endpoint: Endpoint) -> list[bytes]:
    """Return the lines of the blob and of its snapshots."""
    if not stored(endpoint, "log"):
        return []
    parts = [stored(endpoint, "log"), *endpoint.store.kept("uploads", "run/log").values()]
    return [line for part in parts for line in part.splitlines(keepends=True)]


def test_a_close_brings_no_file_where_the_site_says_so(start: Start, endpoint: Endpoint, folder: Path) -> None:
    """Events come in order: the file that was closed first would have gone first."""
    start(close_write=False, settle=3600)
    (folder / ".first").write_bytes(b"first")
    os.utime(folder / ".first", (1, 1))  # its last change is no write: a scan takes it, after the watch was set
    (folder / ".first").rename(folder / "first")
    wait_for(lambda: stored(endpoint, "first"), "a scan")
    (folder / "x").write_bytes(b"one line")
    put(folder, "y", b"whole")
    wait_for(lambda: stored(endpoint, "y"), "what was renamed")
    assert (folder / "x").read_bytes() == b"one line"
    assert stored(endpoint, "x") == b""


@pytest.mark.parametrize(("policy", "blob", "snapshots"), [
    ("snapshot", b"other", [b"first"]), ("replace", b"other", []), ("refuse", b"first", []),
])  # fmt: skip
def test_what_becomes_of_other_content_is_the_sites_choice(
    start: Start, endpoint: Endpoint, folder: Path, policy: str, blob: bytes, snapshots: list[bytes]
) -> None:
    server = start(on_conflict=policy)
    put(folder, "x", b"first")
    wait_for(lambda: os.listdir(folder) == [], "the first to be swept")
    put(folder, "x", b"other")
    if policy == "refuse":
        wait_for(lambda: "other content of 5 bytes" in server.log(), "the refusal")
    else:
        wait_for(lambda: os.listdir(folder) == [], "the other to be swept")
    assert stored(endpoint, "x") == blob
    assert list(endpoint.store.kept("uploads", "run/x").values()) == snapshots


def test_a_sites_own_suffix_is_left_alone(start: Start, endpoint: Endpoint, folder: Path) -> None:
    server = start(temporary=".filling")
    put(folder, "x.filling", b"half")
    put(folder, "y", b"whole")
    drained(server, folder)
    assert os.listdir(folder) == ["x.filling"]
    assert {name for name in endpoint.store.blobs("uploads") if "/.receipts/" not in name} == {"run/y"}

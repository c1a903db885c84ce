"""Clients are bounded: they never take the descriptors that uploads need, and one too many is told so."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.clock import in_no_time
from tests.support.programs import Server, wait_for
from uploader.web.events import SENDS, Events
from uploader.web.places import Limits, divided

WATCH = b"GET /v1/watch/events HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENTS = 16  # the fewest that the setting takes
PLACES = 12  # of these for requests that last
HANG = 120  # seconds; bounds a hang only


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def made(program: str, folder: Path, stack: ExitStack, **settings: int) -> Server:
    """Make one of the two programs, not started."""
    if program == "router":
        server = programs.router(folder, "http://127.0.0.1:9/{ordinal}", **settings)
    else:
        (folder / "share").mkdir()
        endpoint = stack.enter_context(Endpoint())
        server = programs.shard(folder, folder / "share", endpoint.connection_string, **settings)
    stack.callback(server.kill)
    return server


def limited(server: Server, how: str) -> Server:
    """Let it start under a limit of descriptors; `how`: of bash's ulimit."""
    server.argv = ["bash", "-c", f'ulimit {how} && exec "$@"', "bash", *server.argv]
    return server


def connect(server: Server, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    it = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), HANG))
    it.sendall(sent)
    return it


def head(connection: socket.socket) -> bytes:
    """Return the beginning of the answer; b"" where the connection was closed."""
    try:
        return connection.recv(10_000)
    except ConnectionResetError:
        return b""


def answer(connection: socket.socket) -> bytes:
    """Return an answer to the end of its JSON object, or as much as comes of a stream at first."""
    found = head(connection)
    while found.startswith(b"HTTP/1.1 503") and b"}" not in found:
        found += head(connection)
    return found


def ask(server: Server, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", timeout=HANG, trust_env=False)


both = pytest.mark.parametrize("program", ["shard", "router"])


@both
def test_one_viewer_too_many_is_told_so_and_nobody_else_waits(program: str, tmp_path: Path, stack: ExitStack) -> None:
    """503 with a code and Retry-After; the liveness probe, a status and a start get through; a free place is given."""
    server = made(program, tmp_path, stack, clients=CLIENTS)
    server.up()
    viewers = [connect(server, stack, WATCH) for _ in range(PLACES)]
    assert all(head(one).startswith(b"HTTP/1.1 200") for one in viewers)
    for path in ("/v1/watch/events", "/v1/watch/status?session=run-1&wait=60"):
        refused = answer(connect(server, stack, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()))
        assert refused.startswith(b"HTTP/1.1 503"), path
        assert b'"code":"too-many-clients"' in refused
        assert b"retry-after: 5\r\n" in refused
    assert ask(server, "/livez").status_code == 200
    assert ask(server, "/v1/watch/status").status_code == 200
    viewers.pop().close()

    def taken() -> bool:
        with ExitStack() as tries:
            return head(connect(server, tries, WATCH)).startswith(b"HTTP/1.1 200")

    wait_for(taken, "the place that is free")


@both
def test_of_too_many_connections_the_longest_idle_are_closed(program: str, tmp_path: Path, stack: ExitStack) -> None:
    """Whoever opens connections and asks nothing keeps nobody out, and costs a bounded number of descriptors."""
    server = made(program, tmp_path, stack, clients=CLIENTS)
    server.up()
    before = descriptors(server)
    viewer = connect(server, stack, WATCH)
    assert head(viewer).startswith(b"HTTP/1.1 200")
    idle = [connect(server, stack) for _ in range(100)]
    wait_for(lambda: all(closed(one) for one in idle[:80]), "the longest idle to be closed")
    assert ask(server, "/livez").status_code == 200
    assert not closed(idle[-1]), "the newest stay"
    assert descriptors(server) <= before + CLIENTS + 2
    assert not closed(viewer), "who has asked is not closed"


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(10_000):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@both
def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(
    program: str, tmp_path: Path, stack: ExitStack
) -> None:
    """A service manager's soft limit of 1,024 is for programs that use select()."""
    server = limited(made(program, tmp_path, stack), "-Sn 300 && ulimit -Hn 3000")
    server.up()
    rows = Path(f"/proc/{server.pid}/limits").read_text().splitlines()
    (row,) = [row for row in rows if row.startswith("Max open files")]
    assert row.split()[3:5] == ["3000", "3000"]


def test_viewers_never_take_the_descriptors_that_uploads_need(tmp_path: Path, stack: ExitStack) -> None:
    """More viewers than there are descriptors: every file is sent, the probe is answered, and the log stays silent."""
    server = limited(made("shard", tmp_path, stack, connections=16), "-n 700")
    server.up()
    share = tmp_path / "share"
    viewers = [connect(server, stack, WATCH) for _ in range(900)]
    wait_for(lambda: descriptors(server) > 200, "the viewers to be there")
    said = server.output.stat().st_size
    assert ask(server, "/livez").status_code == 200
    httpx.post(
        f"{server.url}/v1/watch/start", json={"session": "run-1"}, timeout=HANG, trust_env=False
    ).raise_for_status()
    for number in range(300):
        (share / f"run-1/.{number}").write_bytes(os.urandom(1000))
        (share / f"run-1/.{number}").rename(share / f"run-1/{number}.bin")

    def done() -> bool:
        (session,) = ask(server, "/v1/watch/status").json()["sessions"]
        return bool(session["files"]["completed"] == 300)

    wait_for(done, "the uploads", interval=0.3)
    assert descriptors(server) < 700
    lines = server.output.read_text()[said:]
    assert "Too many open files" not in lines
    assert lines.count("\n") == lines.count('"file.completed"') + lines.count('"file.deleted"') + 1  # and one start
    assert len(viewers) == 900


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (1_000_000, Limits(2500, 2188, 1024)),
        (1024 - 452, Limits(359, 315, 71)),
        (0, Limits(16, 12, 8)),
        (-500, Limits(16, 12, 8)),
    ],
)
def test_the_descriptors_are_divided(room: int, expected: Limits) -> None:
    """The bound, a backlog that is accepted at once, three times, and places for calls that do not last."""
    assert divided(2500, room) == expected
    assert room < 100 or expected.connections + 3 * expected.backlog <= room


def test_with_many_viewers_each_gets_fewer_events() -> None:
    """The uploads keep the time that 2,000 viewers would take four times a second."""
    count = 4 * SENDS

    async def changing() -> dict[str, Any]:
        return {"at": asyncio.get_running_loop().time()}

    async def all_of() -> float:
        events = Events(changing)
        loop = asyncio.get_running_loop()

        async def one() -> float:
            stream: Any = events.response(Request({"type": "http", "method": "GET"}))
            parts = stream.body_iterator
            for _ in range(2):
                await anext(parts)
            first = loop.time()
            await anext(parts)
            await parts.aclose()
            return loop.time() - first

        return min(await asyncio.gather(*(one() for _ in range(count))))

    assert in_no_time(all_of()) >= count / SENDS

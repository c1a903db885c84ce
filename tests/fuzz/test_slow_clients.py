"""Clients that send slowly, or too much: their limits are kept, and no other client waits for them."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.endpoint.server import Endpoint
from tests.support.programs import Server, shard, wait_for

# The program with shorter times, as the test is about limits, not their length; or with times that
# do not end within a test, so that nobody who is answered can have waited for them.
PROGRAM = """
from uploader.web import server as serve, wire
serve.HEAD_TIME, wire.BODY_TIME = {head}, {body}
serve.KEEP_ALIVE = max(serve.KEEP_ALIVE, {head})
from uploader.__main__ import main
main()
"""
HEAD_TIME = 2.0  # seconds
LONG = 120  # seconds; bounds a hang only
START = b"POST /v1/watch/start HTTP/1.1\r\nHost: x\r\n"


@contextmanager
def running(folder: Path, head: float, body: float) -> Iterator[Server]:
    (folder / "share").mkdir()
    with Endpoint() as endpoint:
        server = shard(folder, folder / "share", endpoint.connection_string)
        server.argv = [sys.executable, "-c", PROGRAM.format(head=head, body=body)]
        try:
            server.up()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("quick"), HEAD_TIME, 1) as server:
        yield server


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("patient"), 3600, 3600) as server:
        yield server


def connect(server: Server, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), LONG)
    connection.sendall(data)
    return connection


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(10_000) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def drip(connections: list[socket.socket], data: bytes) -> list[socket.socket]:
    """Send a byte to each; return those that are still open."""
    for connection in connections:
        try:
            connection.send(data)
        except OSError:
            connection.close()
    return [connection for connection in connections if connection.fileno() >= 0 and not closed(connection)]


slow = pytest.mark.parametrize(
    "head",
    [b"", b"GET /livez HTTP/1.1\r\nX: ", START + b"Content-Length: 60000\r\n\r\n{", b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"],
    ids=["nothing", "a head", "a body", "a body that nobody reads"],
)  # fmt: skip


@slow
def test_two_hundred_that_drip_are_closed(server: Server, head: bytes) -> None:
    """A client that sends a byte now and then, in head or body, does not hold a connection for ever."""
    with ExitStack() as stack:
        left = [stack.enter_context(connect(server, head)) for _ in range(200)]

        def gone() -> bool:
            left[:] = drip(left, b"x" if head else b"")
            return not left

        wait_for(gone, "all to be closed", LONG, 0.3)


@slow
def test_others_are_answered_while_two_hundred_drip(patient: Server, head: bytes) -> None:
    """All slow connections are open before and after each of the quick answers."""
    with ExitStack() as stack:
        left = [stack.enter_context(connect(patient, head)) for _ in range(200)]
        for _ in range(5):
            assert httpx.get(f"{patient.url}/livez", timeout=LONG, trust_env=False).status_code == 200
            left = drip(left, b"x" if head else b"")
            assert len(left) == 200


def test_a_body_that_does_not_come_is_answered_with_400(server: Server) -> None:
    """The client is told the limit instead of waiting without an answer."""
    with connect(server, START + b"Content-Length: 100\r\n\r\n{") as connection:
        answer = connection.recv(10_000)
        while b"}" not in answer:
            answer += connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the body did not come within 1 s" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (START + b"Content-Length: 999999999999\r\n\r\n" + b"x" * 70_000, b"413"),
        (START + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65_536 + b"\r\n10000\r\n" + b"x" * 65_536, b"413"),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, b"400"),
    ],
    ids=["body", "chunks", "path", "headers"],
)  # fmt: skip
def test_what_is_too_large_is_refused_before_it_is_read_to_its_end(server: Server, sent: bytes, status: bytes) -> None:
    """Neither memory nor time is spent on the rest."""
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        try:
            connection.sendall(sent)
            answer = connection.recv(10_000)
        except (ConnectionResetError, BrokenPipeError):
            answer = b"HTTP/1.1 " + status  # it was closed while we were still sending
    assert answer.split()[1] == status
    wait_for(lambda: httpx.get(f"{server.url}/livez", timeout=LONG, trust_env=False).status_code == 200, "an answer")


def test_a_client_that_asks_now_and_then_keeps_its_connection(server: Server) -> None:
    """A connection that is idle whenever the server looks, but was used in between, stays open.

    Where this machine let more than the limit pass between two requests, the server was right to close: then the series
    is repeated.
    """

    def kept() -> bool:
        ports, last, longest = set(), time.monotonic(), 0.0
        with httpx.Client(trust_env=False, timeout=LONG) as client:
            for _ in range(9):
                answer = client.get(f"{server.url}/livez")
                ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
                time.sleep(HEAD_TIME / 5)
        assert len(ports) == 1 or longest > HEAD_TIME
        return longest < HEAD_TIME

    wait_for(kept, "a series without a pause of ours", LONG)

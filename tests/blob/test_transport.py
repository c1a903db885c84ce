"""Bodies go out in pieces, and the kernel takes no more of them than the line does."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.rest import HttpRequest

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.blobs import CONTAINER, ServiceStore
from uploader.blob.connection import LARGEST, LEAST, Connection
from uploader.blob.rate_limit import CHUNK, RateLimit
from uploader.blob.transport import ThreadTransport
from uploader.errors import Cancelled
from uploader.turns import INTERPRETER

MIB = 1024 * 1024


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(ServiceStore()) as made:
        made.store.create(CONTAINER)
        yield made


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes every connection and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"


@contextmanager
def transporting(limit: int = 0) -> Iterator[ThreadTransport]:
    """Give a transport, whose connection is closed at the end."""
    it = ThreadTransport(10, RateLimit(limit))
    try:
        yield it
    finally:
        it._local.connection.close()


def sent(endpoint: Endpoint, transport: ThreadTransport, size: int) -> list[int]:
    """Put a blob of so many bytes, and return what the meter was told."""
    told: list[int] = []
    headers = {"Content-Length": str(size), "x-ms-blob-type": "BlockBlob", "x-ms-version": "2025-05-05"}
    headers["x-ms-date"] = "Thu, 01 Jan 1970 00:00:00 GMT"
    request = HttpRequest("PUT", f"{endpoint.url}/{CONTAINER}/x", headers=headers, content=bytes(size))
    transport.send(request, meter=told.append)
    assert endpoint.log.of(Operation.PUT_BLOB)[-1].received == size
    return told


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_who_waits_for_a_reply_or_for_the_rate_lets_others_run(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """And reads the reply in a turn again."""
    seen: list[tuple[str, bool]] = []

    def noted(name: str, kind: type[Any], method: str) -> None:
        real = getattr(kind, method)

        def called(*given: Any) -> Any:
            seen.append((name, INTERPRETER.taken()))
            return real(*given)

        monkeypatch.setattr(kind, method, called)

    noted("rate", RateLimit, "wait")
    noted("wait", Connection, "await_reply")
    noted("read", Connection, "getresponse")
    with transporting(limit) as transport, INTERPRETER.turn():
        sent(endpoint, transport, 1000)
    assert seen == [("rate", False)] * bool(limit) + [("wait", False), ("read", True)]


def test_a_reply_that_does_not_come_ends_the_request_when_its_time_is_over(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for twice."""
    monkeypatch.setattr(Connection, "getresponse", None, raising=False)
    transport = ThreadTransport(0.1, RateLimit(0))
    with pytest.raises(ServiceResponseError, match="timed out"):
        transport.send(HttpRequest("GET", silent))


def test_what_was_decrypted_already_is_not_waited_for() -> None:
    """A TLS record may hold more than was asked for; nothing more may come from the socket then."""

    class Read(ssl.SSLSocket):
        def pending(self) -> int:
            return 1

    connection = Connection("127.0.0.1", timeout=0.0)
    connection.sock = Read.__new__(Read)
    connection.await_reply()


@pytest.mark.parametrize("size", [1000, CHUNK, MIB, 8 * MIB])
def test_each_piece_is_told_once_it_is_handed_over(endpoint: Endpoint, size: int) -> None:
    """Small bodies go whole, large ones in pieces that grow while the socket takes them quickly."""
    with transporting() as transport:
        *told, last = sent(endpoint, transport, size)
    pieces = [end - begin for begin, end in pairwise([0, *told])]
    assert (told[-1], last) == (size, 0), "and 0: it is refused"
    assert pieces == [size] if size <= CHUNK else max(pieces) <= LARGEST
    assert pieces[:2] == [LEAST] * 2 or size <= CHUNK


def test_a_limited_rate_has_pieces_of_its_own(endpoint: Endpoint) -> None:
    """Other senders take their turns between two of them, however quickly the socket takes each."""
    with transporting(1 << 40) as transport:
        assert sent(endpoint, transport, MIB) == [*range(CHUNK, MIB + 1, CHUNK), 0]


@pytest.mark.parametrize("size", [MIB, 8 * MIB])
def test_the_kernel_holds_no_more_than_a_piece(endpoint: Endpoint, size: int) -> None:
    """Else megabytes would count as sent that no slow line has taken, and a stop at once would wait for them."""
    with transporting() as transport:
        sent(endpoint, transport, size)
        connection = transport._local.connection
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == connection.piece


@pytest.mark.parametrize(
    ("took", "piece"),
    [
        ([0.0], LEAST),
        ([0.0, 0.0], 2 * LEAST),
        ([0.0, 0.1, 0.0], LEAST),
        ([0.0] * 3, 2 * LEAST),
        ([0.0] * 4, 4 * LEAST),
        ([0.0] * 100, LARGEST),
        ([0.0] * 100 + [0.15] * 100, LARGEST),
        ([0.0] * 100 + [1.0], LARGEST // 5),
        ([0.0] * 100 + [60.0], LEAST),
        ([1.0, 0.0], LEAST),
    ],
)
def test_the_size_of_a_piece_follows_the_line(took: list[float], piece: int) -> None:
    """Two quick ones double it, as the kernel takes the first at once whatever the line does; a slow one shrinks it."""
    held: list[int] = []

    class Known(Connection):
        def hold(self, size: int) -> None:
            held.append(size)

    connection = Known("127.0.0.1")
    for seconds in took:
        connection.taken(seconds)
    assert connection.piece == piece
    assert [LEAST, *held][-1] == piece


def test_a_request_that_is_given_up_leaves_no_connection(endpoint: Endpoint) -> None:
    """The store sees at once that the rest will not come, and the next request begins on a new connection."""

    def end(_: int) -> None:
        raise Cancelled

    with transporting() as transport:
        request = HttpRequest("PUT", f"{endpoint.url}/x", headers={"Content-Length": str(MIB)}, content=bytes(MIB))
        with pytest.raises(Cancelled):
            transport.send(request, meter=end)
        assert transport._local.connection.sock is None

"""Bodies go out in pieces, and the kernel takes no more of them than the line does."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from azure.core.rest import HttpRequest

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.blobs import CONTAINER, ServiceStore
from uploader.blob.rate_limit import CHUNK, RateLimit
from uploader.blob.transport import LEAST, PIECES, ThreadTransport
from uploader.errors import Cancelled

MIB = 1024 * 1024


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(ServiceStore()) as made:
        made.store.create(CONTAINER)
        yield made


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


@pytest.mark.parametrize("limit", [0, 1 << 40])
def test_each_piece_is_told_once_it_is_handed_over(endpoint: Endpoint, limit: int) -> None:
    """Small bodies go whole, large ones in 32 pieces at most; a limited rate has pieces of its own."""
    with transporting(limit) as transport:
        for size in (1000, CHUNK, MIB, 8 * MIB):
            piece = size if size <= CHUNK else CHUNK if limit else max(LEAST, size // PIECES)
            assert sent(endpoint, transport, size) == [*range(piece, size + 1, piece), 0], "and 0: it is refused"


@pytest.mark.parametrize("size", [MIB, 8 * MIB])
def test_the_kernel_holds_no_more_than_a_piece(endpoint: Endpoint, size: int) -> None:
    """Else megabytes would count as sent that no slow line has taken, and a stop at once would wait for them."""
    with transporting() as transport:
        sent(endpoint, transport, size)
        held = transport._local.connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert held == size // PIECES


def test_a_request_that_is_given_up_leaves_no_connection(endpoint: Endpoint) -> None:
    """The store sees at once that the rest will not come, and the next request begins on a new connection."""

    def end(_: int) -> None:
        raise Cancelled

    with transporting() as transport:
        request = HttpRequest("PUT", f"{endpoint.url}/x", headers={"Content-Length": str(MIB)}, content=bytes(MIB))
        with pytest.raises(Cancelled):
            transport.send(request, meter=end)
        assert transport._local.connection.sock is None

"""azure-core's HTTP over http.client: one kept connection for each thread.

azure-core takes any transport (its documented extension point). Its own transport, over requests, costs seven times
the CPU of this one for a small file; docs/decisions.md has the figures.
"""

import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest, HttpResponse

from uploader.blob.rate_limit import CHUNK, RateLimit

PIECE = 1024 * 1024  # bytes a send: the time-out of socket.sendall is for all the bytes of one call
IDLE = 30.0  # seconds after which a connection is opened again: the service closes idle connections


class Reply(HttpResponse):
    """A response that was read whole."""

    def __init__(self, request: HttpRequest, raw: http.client.HTTPResponse, content: bytes) -> None:
        self._request = request
        self._raw = raw
        self._content = content

    request = property(lambda self: self._request)
    status_code = property(lambda self: self._raw.status)
    headers = property(lambda self: self._raw.headers)
    reason = property(lambda self: self._raw.reason)
    content_type = property(lambda self: self._raw.headers.get("Content-Type"))
    is_closed = property(lambda _: True)
    is_stream_consumed = property(lambda _: True)
    encoding = property(lambda _: "utf-8", lambda _self, _value: None)
    url = property(lambda self: self._request.url)
    content = property(lambda self: self._content)

    def text(self, encoding: str | None = None) -> str:
        """Return the content as text."""
        return self._content.decode(encoding or "utf-8-sig", "replace")

    def json(self) -> Any:  # noqa: ANN401 azure-core's signature
        """Return the content as JSON decodes it."""
        return orjson.loads(self._content)

    def body(self) -> bytes:
        """Return the content; the SDK's generated code asks for it by this name."""
        return self._content

    def read(self) -> bytes:
        """Return the content."""
        return self._content

    def raise_for_status(self) -> None:
        """Raise HttpResponseError for 4xx and 5xx."""
        if self.status_code >= 400:
            raise HttpResponseError(response=self)

    def iter_bytes(self, **_: object) -> Iterator[bytes]:
        """Yield the content."""
        yield self._content

    iter_raw = iter_bytes

    def stream_download(self, _pipeline: Any, **_: Any) -> Iterator[bytes]:  # noqa: ANN401 azure-core's signature
        """Yield the content."""
        yield self._content

    def close(self) -> None:
        """Do nothing: all was read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Connection(http.client.HTTPConnection):
    """Sends a small body in one piece with its head: two packets wake the receiver twice."""

    _small = False
    _head = b""

    def begin(self, body: Any) -> None:  # noqa: ANN401 whatever http.client takes
        """Prepare for the next request, which has this body."""
        self._small = isinstance(body, bytes) and 0 < len(body) <= CHUNK
        self._head = b""

    def send(self, data: Any) -> None:  # noqa: ANN401 as http.client
        """Hold the head of a request with a small body until the body comes."""
        if self._small:
            self._small, self._head = False, data
            return
        head, self._head = self._head, b""
        super().send(head + data if head else data)


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class ThreadTransport(HttpTransport[HttpRequest, HttpResponse]):
    """No pool and no lock. https obeys HTTPS_PROXY and NO_PROXY as the environment had them at the start."""

    def __init__(self, timeout: float, rate: RateLimit) -> None:
        """`timeout`: seconds for connecting, for each piece sent and for the reply."""
        self._local = threading.local()
        self._timeout = timeout
        self._rate = rate
        self._tls = ssl.create_default_context()
        self._proxy = getproxies().get("https")

    def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    def close(self) -> None:
        """Do nothing: connections close with their threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def send(self, request: HttpRequest, **_: object) -> HttpResponse:
        """Send, and read the whole reply. Raises ServiceRequestError when sending fails, else ServiceResponseError."""
        scheme, rest = request.url.split("://", 1)
        netloc, slash, target = rest.partition("/")
        connection = self._connection(scheme, netloc)
        headers = request.headers
        sent = False
        try:
            body = self._body(request.content)
            connection.begin(body)
            connection.request(request.method, slash + target, body, headers)
            sent = True
            raw = connection.getresponse()
            content = raw.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            kind = ServiceResponseError if sent else ServiceRequestError
            raise kind(f"{type(error).__name__}: {error}", error=error) from error
        self._local.used = time.monotonic()
        return Reply(request, raw, content)

    def _connection(self, scheme: str, netloc: str) -> _Connection:
        known: _Connection | None = getattr(self._local, "connection", None)
        if known is None:
            known = self._local.connection = self._made(scheme, netloc)
            self._local.used = time.monotonic()
        elif time.monotonic() - self._local.used > IDLE:
            known.close()  # request() opens it again by itself
        return known

    def _made(self, scheme: str, netloc: str) -> _Connection:
        if scheme != "https":
            return _Connection(netloc, timeout=self._timeout)
        if not self._proxy or proxy_bypass(netloc):
            return _TlsConnection(netloc, timeout=self._timeout, context=self._tls)
        through = urlsplit(self._proxy).netloc
        connection = _TlsConnection(through, timeout=self._timeout, context=self._tls)
        connection.set_tunnel(netloc)
        return connection

    def _body(self, content: Any) -> Any:  # noqa: ANN401 whatever azure-core holds
        """Return a large body as pieces, at the allowed rate; each try gets a new iterator."""
        size = CHUNK if self._rate.limit else PIECE
        if not isinstance(content, bytes | memoryview) or (len(content) <= size and not self._rate.limit):
            return content
        return self._pieces(memoryview(content), size)

    def _pieces(self, content: memoryview, size: int) -> Iterator[memoryview]:
        for at in range(0, len(content), size):
            piece = content[at : at + size]
            self._rate.wait(len(piece))
            yield piece

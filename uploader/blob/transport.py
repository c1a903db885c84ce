"""azure-core's HTTP over http.client: one kept connection for each thread.

azure-core takes any transport (its documented extension point). Its own transport, over requests, costs seven times
the CPU of this one for a small file; docs/decisions.md has the figures.
"""

import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import orjson
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest, HttpResponse

from uploader.blob.connection import Connection, ProxyRefused, TlsConnection, Tunnelled
from uploader.blob.proxy import Proxies, Proxy
from uploader.blob.rate_limit import CHUNK, RateLimit
from uploader.blob.store import Meter
from uploader.errors import BadConfiguration, Cancelled
from uploader.turns import INTERPRETER

_SIGNATURE = re.compile(r"(?i)\b(sig=)[^&\s'\"]+")
_WRONG_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
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


class ThreadTransport(HttpTransport[HttpRequest, HttpResponse]):
    """No pool and no lock. Proxies and SSL_CERT_FILE are as the environment had them at the start."""

    def __init__(self, timeout: float, rate: RateLimit, idle: float = IDLE) -> None:
        """`timeout`: seconds for connecting, for each piece sent and for the reply. Raises BadConfiguration.

        `idle`: seconds after which a connection is opened again; 0: for each request.
        """
        self._local = threading.local()
        self._timeout = timeout
        self._rate = rate
        self._idle = idle
        self._tls = trusting()
        self._proxies = Proxies()

    def sleep(self, duration: float) -> None:
        """Wait before the next try, in seconds."""
        with INTERPRETER.away():
            super().sleep(duration)

    def open(self) -> None:
        """Do nothing: connections are made when they are needed."""

    def close(self) -> None:
        """Do nothing: connections close with their threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def send(self, request: HttpRequest, **options: Any) -> HttpResponse:  # noqa: ANN401 azure-core's and `meter`
        """Send, and read the whole reply. Raises ServiceRequestError when sending fails, else ServiceResponseError.

        `meter`: a store's Meter.
        """
        meter: Meter = options.get("meter") or _unmetered
        scheme, rest = request.url.split("://", 1)
        netloc, slash, target = rest.partition("/")
        headers = request.headers
        sent = False
        connection: Connection | None = None
        try:
            connection = self._connection(scheme, netloc)
            body = self._body(request.content, connection, meter)
            connection.begin(body)
            if scheme == "http" and (proxy := self._proxy(scheme, netloc)):
                connection.request(request.method, request.url, body, {**headers, **proxy.headers})
            else:
                connection.request(request.method, slash + target, body, headers)
            sent = True
            if isinstance(body, bytes | memoryview):
                meter(len(body))
            with INTERPRETER.away():
                connection.await_reply()
            raw = connection.getresponse()
            content = raw.read()
            if raw.status == 407 and scheme == "http" and (proxy := self._proxy(scheme, netloc)):
                raise ProxyRefused(proxy, netloc, raw.status, raw.reason)
            if raw.status >= 300:
                meter(0)
        except Cancelled:
            if connection:
                connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            if connection:
                connection.close()
            meter(0)
            kind = ServiceResponseError if sent else ServiceRequestError
            raise kind(f"{netloc}: {_reason(error)}", error=error) from error
        self._local.used = time.monotonic()
        return Reply(request, raw, content)

    def _connection(self, scheme: str, netloc: str) -> Connection:
        known: Connection | None = getattr(self._local, "connection", None)
        if known is None:
            known = self._local.connection = self._made(scheme, netloc)
            self._local.used = time.monotonic()
        elif time.monotonic() - self._local.used >= self._idle:
            known.close()  # request() opens it again by itself
        return known

    def _made(self, scheme: str, netloc: str) -> Connection:
        proxy = self._proxy(scheme, netloc)
        if scheme != "https":
            return Connection(str(proxy) if proxy else netloc, timeout=self._timeout)
        if proxy:
            return Tunnelled(netloc, proxy, self._timeout, self._tls)
        return TlsConnection(netloc, timeout=self._timeout, context=self._tls)

    def _proxy(self, scheme: str, netloc: str) -> Proxy | None:
        server = urlsplit(f"{scheme}://{netloc}")
        port = server.port or (443 if scheme == "https" else 80)
        return self._proxies.on_the_way(scheme, server.hostname or "", port)

    def _body(self, content: Any, connection: Connection, meter: Meter) -> Any:  # noqa: ANN401 what azure-core holds
        """Return a large body as pieces, at the allowed rate; each try gets a new iterator."""
        if isinstance(content, dict):  # a form, as the identity service gets it
            return urlencode(content).encode()
        if not isinstance(content, bytes | memoryview) or (len(content) <= CHUNK and not self._rate.limit):
            return content
        return self._pieces(memoryview(content), connection, meter)

    def _pieces(self, content: memoryview, connection: Connection, meter: Meter) -> Iterator[memoryview]:
        """Yield the content in pieces, and tell the meter after each. http.client has connected before it asks.

        The time-out of socket.sendall is for a whole call, and only between two calls is progress seen, and can a
        request be given up.
        """
        size = CHUNK if self._rate.limit else connection.piece
        connection.hold(size)
        done = 0
        while done < len(content):
            piece = content[done : done + size]
            with INTERPRETER.away():
                self._rate.wait(len(piece))
            began = time.monotonic()
            yield piece
            if not self._rate.limit:
                connection.taken(time.monotonic() - began)
                size = connection.piece
            done += len(piece)
            meter(done)


def _unmetered(_: int) -> None:
    pass


def trusting() -> ssl.SSLContext:
    """Return a context that trusts SSL_CERT_FILE and SSL_CERT_DIR where set, else the system's authorities.

    Raises BadConfiguration: a file that is missing or holds no certificate would be passed over without a word.
    """
    context = ssl.create_default_context()
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            context.load_verify_locations(file)
        except OSError as error:  # ssl.SSLError too
            raise BadConfiguration(f"SSL_CERT_FILE={file}: no certificates can be read there: {error}") from error
    return context


def _reason(error: Exception) -> str:
    """Say what went wrong, without a signature."""
    if isinstance(error, ProxyRefused):
        return str(error)
    text = _SIGNATURE.sub(r"\1***", f"{type(error).__name__}: {error}")
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _WRONG_TIME:
        text += f"; is the clock of this machine right? It says {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    return text

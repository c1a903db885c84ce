"""One connection to a server, straight or through a proxy."""

import http.client
import select
import socket
import ssl
from typing import Any

from uploader.blob.proxy import Proxy, bracketed
from uploader.blob.rate_limit import CHUNK

LEAST, LARGEST = 32 * 1024, 1024 * 1024  # bytes of a piece
QUICK, SLOW = 0.02, 0.2  # seconds that a piece should take: larger ones cost less, after smaller ones more is seen


class ProxyRefused(OSError):
    """The proxy answers, and does not let us through. `status`: its answer's."""

    def __init__(self, proxy: Proxy, target: str, status: int, reason: str) -> None:
        why = "it does not reach the server" if status >= 500 else f"it has to allow {target}"
        why = "set user and password in the proxy's URL" if status == 407 else why
        super().__init__(f"the proxy {proxy} answered {status} {reason} to CONNECT {target}; {why}")
        self.status = status


class Connection(http.client.HTTPConnection):
    """Sends a small body in one piece with its head: two packets wake the receiver twice.

    `piece`: bytes of the next piece of a large body.
    """

    piece = LEAST
    _quick = 0
    _small = False
    _head = b""

    def begin(self, body: Any) -> None:  # noqa: ANN401 whatever http.client takes
        """Prepare for the next request, which has this body."""
        self._small = isinstance(body, bytes) and 0 < len(body) <= CHUNK
        self._head = b""

    def await_reply(self) -> None:
        """Wait until there is something to read, for the time-out of the connection. Raises TimeoutError."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return  # read from the socket already, and decrypted
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        if not waiting.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError("timed out")

    def hold(self, size: int) -> None:
        """Let the kernel hold no more than about `size` bytes that are not on the line yet: it would take megabytes.

        So what is handed over is nearly what the line has taken.
        """
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def taken(self, seconds: float) -> None:
        """Choose the size of the next piece by how long the socket took this one.

        A single quick one says nothing: the kernel holds a piece of which nothing is on the line.
        """
        before = self.piece
        self._quick = self._quick + 1 if seconds < QUICK else 0
        if seconds > SLOW:
            self.piece = max(LEAST, int(before * SLOW / seconds))
        elif self._quick == 2:
            self.piece, self._quick = min(LARGEST, 2 * before), 0
        if self.piece != before:
            self.hold(self.piece)

    def send(self, data: Any) -> None:  # noqa: ANN401 as http.client
        """Hold the head of a request with a small body until the body comes."""
        if self._small:
            self._small, self._head = False, data
            return
        head, self._head = self._head, b""
        super().send(head + data if head else data)


class TlsConnection(Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class Tunnelled(TlsConnection):
    """The same through a proxy's CONNECT."""

    def __init__(self, netloc: str, proxy: Proxy, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(netloc, timeout=timeout, context=context)
        self._proxy = proxy
        self._trust = context

    def connect(self) -> None:
        """Connect. Raises ProxyRefused, OSError."""
        made = socket.create_connection((self._proxy.host, self._proxy.port), self.timeout)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ask(made)
            self.sock = self._trust.wrap_socket(made, server_hostname=self.host)
        except BaseException:
            made.close()
            raise

    def _ask(self, made: socket.socket) -> None:
        target = f"{bracketed(self.host)}:{self.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        lines += [f"{name}: {value}" for name, value in self._proxy.headers.items()]
        made.sendall("\r\n".join([*lines, "", ""]).encode())
        reply = http.client.HTTPResponse(made, method="CONNECT")
        try:
            reply.begin()
            if reply.status != 200:
                raise ProxyRefused(self._proxy, target, reply.status, reply.reason)
        finally:
            reply.close()

"""The endpoint: an HTTP server on a thread, with a store, a log and faults that tests control."""

import email.utils
import http.server
import os
import socket
import ssl
import struct
import sys
import threading
import time
import uuid
from typing import Any, Self

from tests.endpoint.faults import Alter, Do, Faults, Hold, Refuse, Reset, StallReply, StallSend
from tests.endpoint.operations import perform
from tests.endpoint.reply import Reply, refusal
from tests.endpoint.request import Log, Request, parse
from tests.endpoint.store import Refused, Store
from tests.support.programs import ACCOUNT, connection_string

CLOCK_TOLERANCE = 900
CHUNK = 64 * 1024
# A small receive buffer: with a throttle, what the client has sent is nearly what the endpoint has read.
RECEIVE_BUFFER = 256 * 1024


class Broken(Exception):
    """The connection is to be broken."""


class Endpoint:
    """A blob endpoint on 127.0.0.1. Use as a context manager."""

    def __init__(self, store: Store | None = None, *, context: ssl.SSLContext | None = None) -> None:
        self.store = store or Store()
        self.faults = Faults()
        self.log = Log()
        self.closing = threading.Event()
        self._server = _Server(self, context)
        self._scheme = "https" if context else "http"

    @property
    def url(self) -> str:
        """The account's URL."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        return connection_string(self.url)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="endpoint", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self.endpoint = endpoint
        self.context = context
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        super().server_bind()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.context is None:
            return connection, address
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, as many tests make them do; print every other error."""
        if not isinstance(sys.exception(), OSError | Broken):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _answer(self) -> None:
        endpoint = self.server.endpoint
        try:
            request = parse(self.command, self.path, self.headers)
        except Refused as error:
            self.close_connection = True
            self._send(refusal(error))
            return
        endpoint.log.add(request)
        try:
            reply = self._perform(endpoint, request)
        except Refused as error:
            reply = refusal(error)
        request.body = b""  # the log keeps the request, and need not keep its body
        request.status, request.ended = reply.status, time.monotonic()
        self._send(reply)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815 - the names that the base class looks for

    def _perform(self, endpoint: Endpoint, request: Request) -> Reply:
        fault = endpoint.faults.take(request)
        if fault == Reset(after_effect=False):
            self._break()
        self._read(endpoint, request, fault if isinstance(fault, StallSend) else None)
        endpoint.closing.wait(endpoint.faults.latency)
        _check_clock(endpoint.faults.skew, request)
        match fault:
            case Refuse(status, code, retry_after, headers, message, named):
                patience = {} if retry_after is None else {"Retry-After": str(retry_after)}
                raise Refused(status, code, message, headers={**headers, **patience}, names=named)
            case Hold(gate):
                while not (gate.is_set() or endpoint.closing.is_set()):
                    gate.wait(0.1)
            case Do(change):
                change(endpoint.store)
            case _:
                pass
        try:
            reply = perform(endpoint.store, request)
            return _altered(reply, fault) if isinstance(fault, Alter) else reply
        finally:
            if isinstance(fault, StallReply):
                endpoint.closing.wait(fault.seconds)
            if fault == Reset(after_effect=True):
                self._break()

    def _read(self, endpoint: Endpoint, request: Request, stall: StallSend | None) -> None:
        body = bytearray(request.length)
        view = memoryview(body)
        while request.received < request.length:
            if stall and request.received >= stall.after_bytes:
                endpoint.closing.wait(stall.seconds)
                self._break()
            count = self.rfile.readinto1(view[request.received :][:CHUNK])
            if not count:
                raise ConnectionResetError
            request.received += count
            if delay := endpoint.faults.throttle.delay(count):
                endpoint.closing.wait(delay)
        view.release()
        request.body = body

    def _break(self) -> None:
        """Close with a reset, so that the client sees it at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        raise Broken

    def _send(self, reply: Reply) -> None:
        headers = {
            "Content-Length": str(len(reply.body)),
            "Date": email.utils.formatdate(time.time() + self.server.endpoint.faults.skew, usegmt=True),
            "Server": "test-endpoint",
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-version": self.headers.get("x-ms-version", "2025-05-05"),
            "x-ms-client-request-id": self.headers.get("x-ms-client-request-id", ""),
            **reply.headers,
        }
        lines = [f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.wfile.write(head if self.command == "HEAD" or reply.status == 304 else head + reply.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden method's name
        """Print nothing: the log is an object."""


def _altered(reply: Reply, fault: Alter) -> Reply:
    body = reply.body if fault.body is None else fault.body
    return Reply(reply.status, {**reply.headers, **fault.headers}, body)


def _check_clock(skew: float, request: Request) -> None:
    sent = request.headers.get("x-ms-date") or request.headers.get("Date")
    if not sent:
        return
    if abs(email.utils.parsedate_to_datetime(sent).timestamp() - time.time() - skew) > CLOCK_TOLERANCE:
        raise Refused(403, "AuthenticationFailed", "Server failed to authenticate the request.")

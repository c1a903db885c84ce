"""Stands between an NFS client and its server and swallows the reply to a chosen call that the server has done."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

# RFC 7530 and 8881 (operations of a COMPOUND), RFC 1813 (procedures of version 3).
OPERATIONS = {"remove": 28, "rename": 29, "link": 11}
PROCEDURES = {"remove": 12, "rename": 14, "link": 15}
NFS3 = struct.pack(">II", 100003, 3)


def xdr(name: str) -> bytes:
    """Encode a name as in a call."""
    data = name.encode()
    return struct.pack(">I", len(data)) + data + b"\0" * (-len(data) % 4)


def call(kind: str, *names: str) -> Callable[[bytes], bool]:
    """Return a function that recognises this call on these names in the bytes of either version."""
    version4 = struct.pack(">I", OPERATIONS[kind]) + b"".join(xdr(name) for name in names)
    version3 = NFS3 + struct.pack(">I", PROCEDURES[kind])

    def matches(data: bytes) -> bool:
        return version4 in data or (version3 in data and all(xdr(name) in data for name in names))

    return matches


def end(connection: socket.socket) -> None:
    """Break a connection, even while a thread waits for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class Proxy:
    """Forwards TCP; `swallow` chooses the reply that gets lost."""

    def __init__(self, address: str, port: int) -> None:
        self.listener = socket.create_server((address, port))
        self.matches: Callable[[bytes], bool] | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.swallowed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self, matches: Callable[[bytes], bool], meanwhile: Callable[[], None]) -> None:
        """Lose the reply to the next call that matches, do `meanwhile`, and break the connection."""
        self.swallowed.clear()
        self.meanwhile, self.matches = meanwhile, matches

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", 2049))
        except OSError:
            client.close()
            return
        lost = threading.Event()
        replies = threading.Thread(target=self._replies, args=(server, client, lost), daemon=True)
        replies.start()
        while data := self._received(client):
            if self.matches and self.matches(data):
                self.matches = None
                lost.set()
            try:
                server.sendall(data)
            except OSError:
                break
            if lost.is_set():
                break
        if not lost.is_set():
            end(server)
        replies.join()
        end(client)

    def _replies(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        while data := self._received(server):
            if lost.is_set():
                self.meanwhile()
                self.swallowed.set()
                break
            try:
                client.sendall(data)
            except OSError:
                break
        end(server)
        end(client)

    @staticmethod
    def _received(source: socket.socket) -> bytes:
        try:
            return source.recv(4 * 1024 * 1024)
        except OSError:
            return b""

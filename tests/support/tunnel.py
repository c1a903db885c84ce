"""A proxy for https."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Tunnel:
    """A proxy that understands CONNECT only; `asked` lists its requests. `wants`: what Proxy-Authorization must be."""

    def __init__(self, wants: str = "") -> None:
        self.asked: list[str] = []
        self.wants = wants
        self.refuses = ""  # answered to each request, e.g. "403 Forbidden"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), which a close does not
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (more := client.recv(1)):
                return
            head += more
        method, target, _ = head.split(b"\r\n")[0].decode().split()
        self.asked.append(f"{method} {target}")
        if self.wants and f"Proxy-Authorization: {self.wants}\r\n".encode() not in head:
            self._refuse(client, "407 Proxy Authentication Required")
            return
        if self.refuses:
            self._refuse(client, self.refuses)
            return
        host, _, port = target.rpartition(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            self._refuse(client, "502 Bad Gateway")
            return
        with client, server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()

    def _refuse(self, client: socket.socket, answer: str) -> None:
        with client:
            client.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

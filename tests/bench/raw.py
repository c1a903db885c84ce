"""The limits of this machine in this run: MD5 on one core, and a sender that does nothing else."""

import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.bench.endpoint import Discard

BLOCK = 8 << 20


def md5_rate(content: int = 1 << 30) -> float:
    """Return the bytes per second of MD5 on one core."""
    block, digest = os.urandom(BLOCK), hashlib.md5(usedforsecurity=False)
    started = time.perf_counter()
    for _ in range(content // BLOCK):
        digest.update(block)
    return content / (time.perf_counter() - started)


def large_rate(endpoint: Discard, content: int = 2 << 30, threads: int = 4) -> float:
    """Return the bytes per second of bare sendall calls of 8 MiB blocks."""
    count = content // BLOCK
    return count * BLOCK / _send(endpoint, os.urandom(BLOCK), count, threads)


def small_rate(endpoint: Discard, size: int = 20_000, count: int = 20_000, threads: int = 4) -> float:
    """Return the requests per second of bare sendall and recv calls with bodies of this size."""
    return count / _send(endpoint, os.urandom(size), count, threads)


def _send(endpoint: Discard, body: bytes, count: int, threads: int) -> float:
    path = urlsplit(endpoint.url).path
    head = f"PUT {path}/uploads/raw?comp=block&blockid=AAAA HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    message = head.encode() + body

    def work() -> None:
        with _connect(endpoint) as connection:
            for _ in range(count // threads):
                connection.sendall(message)
                assert connection.recv(4096).startswith(b"HTTP/1.1 201")

    return _timed([work] * threads)


def _connect(endpoint: Discard) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", endpoint.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not endpoint.authority:
        return connection
    return ssl.create_default_context(cafile=endpoint.authority).wrap_socket(connection, server_hostname="127.0.0.1")


def _timed(work: list[Callable[[], None]]) -> float:
    threads = [threading.Thread(target=each) for each in work]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started

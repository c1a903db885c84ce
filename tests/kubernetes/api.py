"""A stand-in for the Kubernetes API: one StatefulSet, over HTTPS with a token, as the programs ask for it."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import trustme


def spec(count: object) -> bytes:
    """Return a StatefulSet with this many replicas."""
    return json.dumps({"kind": "StatefulSet", "spec": {"replicas": count}}).encode()


class Api(ThreadingHTTPServer):
    """Answers as a test sets it, and records the requests. Use as a context manager."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.authority = authority
        self.status = 200
        self.body = spec(1)
        self.asked: list[tuple[str, str]] = []
        self.let_go = threading.Event()
        self.let_go.set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def account(self, folder: Path) -> Path:
        """Write a service account's folder, as the kubelet mounts it."""
        folder.mkdir(exist_ok=True)
        (folder / "namespace").write_text("lab")
        (folder / "token").write_text("first\n")
        self.authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        return folder

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that distrust the server or give up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.server.let_go.wait(10)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

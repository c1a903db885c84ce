"""An identity service over https: it gives a client with a secret, or with a projected token, one answer."""

import http.server
import ssl
import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path

import orjson
import trustme


class Entra(http.server.ThreadingHTTPServer):
    """An identity service over https that gives one answer to each request for a token."""

    daemon_threads = True
    answer: tuple[int, Mapping[str, object] | bytes] = (200, {})
    skew = 0.0

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self.trust = folder / "authority.pem"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Entra

    def do_GET(self) -> None:
        url = self.server.url
        self._send(
            200,
            {
                "token_endpoint": f"{url}/token",
                "authorization_endpoint": f"{url}/a",
                "issuer": f"{url}/t",
                "tenant_discovery_endpoint": f"{url}/t/v2.0/.well-known/openid-configuration",
                "metadata": [],
            },
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*self.server.answer)

    def _send(self, status: int, answer: Mapping[str, object] | bytes) -> None:
        body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.server.skew, usegmt=True))
        self.send_header("Content-Type", "text/html" if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

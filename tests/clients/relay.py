"""Passes requests on to a server, and remembers how each was answered."""

import http.server
import threading
from typing import Any, Self

import httpx


class Relay:
    """`statuses`: of the answers so far, in their order."""

    def __init__(self, target: str) -> None:
        self.statuses: list[int] = []
        self._target = target
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = httpx.request(self.command, relay._target + self.path, content=body, timeout=100)
                relay.statuses.append(answer.status_code)
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers["content-type"])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = pass_on  # noqa: N815 the names that the base class looks for

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

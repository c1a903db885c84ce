"""A site that reaches the store through a proxy only: HTTPS_PROXY and NO_PROXY, as other programs read them."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import pytest
import trustme

from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.blobs import azure_blobs
from tests.support.programs import ACCOUNT, connection_string, wait_for
from uploader.errors import BadConfiguration

SIZES = {"small.bin": 1000, "middle.bin": 200_000, "large.bin": 20 << 20}


class Tunnel:
    """A proxy that understands CONNECT only; `asked` lists its requests. `wants`: what Proxy-Authorization must be."""

    def __init__(self, wants: str = "") -> None:
        self.asked: list[str] = []
        self.wants = wants
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
            with client:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.rpartition(":")
        with client, socket.create_connection((host, int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with Tunnel() as it:
        yield it


@pytest.mark.parametrize("bypassed", [False, True], ids=["through the proxy", "NO_PROXY"])
def test_files_of_each_size_go_the_way_that_the_environment_says(
    tmp_path: Path, tunnel: Tunnel, bypassed: bool
) -> None:
    """Every kind of request uses the proxy, and none does where NO_PROXY names the store."""
    issuer, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("127.0.0.1").configure_cert(context)
    issuer.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    folder = tmp_path / "share/run"
    folder.mkdir(parents=True)
    contents = {name: bytes(size) for name, size in SIZES.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with Endpoint(context=context) as endpoint:
        server = programs.shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        server.env |= {"HTTPS_PROXY": tunnel.url, "SSL_CERT_FILE": str(tmp_path / "authority.pem")}
        server.env |= {"NO_PROXY": "127.0.0.1"} if bypassed else {}
        try:
            server.up()
            answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run"}, timeout=10, trust_env=False)
            assert answer.status_code == 201, answer.text
            wanted = {f"run/{name}": content for name, content in contents.items()}
            wait_for(lambda: endpoint.store.blobs("uploads").keys() == wanted.keys(), "all blobs")
        finally:
            server.kill()
        stored = {name: blob.content for name, blob in endpoint.store.blobs("uploads").items()}
        assert stored == wanted
        address = endpoint.url.split("/")[2]
    assert set(tunnel.asked) == (set() if bypassed else {f"CONNECT {address}"})


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint over https that this process trusts."""
    issuer, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("127.0.0.1").configure_cert(context)
    issuer.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Endpoint(context=context) as endpoint:
        yield endpoint


@pytest.mark.parametrize("password", ["p%40ss%3A%2F", "wrong"])
def test_a_proxy_that_wants_a_password_gets_it(
    secured: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """A wrong one ends the start with the proxy's name, its answer, and no password."""
    with Tunnel("Basic dXNlcjpwQHNzOi8=") as proxy:  # user:p@ss:/
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//user:{password}@"))
        if password == "wrong":
            with (
                pytest.raises(BadConfiguration, match=r"the proxy 127\.0\.0\.1:\d+ answered 407") as told,
                azure_blobs(secured.connection_string, tmp_path),
            ):
                pass
            assert "wrong" not in str(told.value)
            assert "Basic" not in str(told.value)
        else:
            with azure_blobs(secured.connection_string, tmp_path) as store:
                assert store.head("run/x") is None
        assert proxy.asked


def test_a_store_without_tls_is_asked_through_http_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole address goes to the proxy, and the proxy's password with it."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Endpoint() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"user:p%40ss@{proxy.url.split('/')[2]}")
        with azure_blobs(connection_string(f"http://store.invalid/{ACCOUNT}"), tmp_path) as store:
            assert store.head("run/x") is None
        asked = [each for operation in ("Get Blob", "Get Blob Properties") for each in proxy.log.of(operation)]  # type: ignore[arg-type]
        assert {each.headers["Host"] for each in asked} == {"store.invalid"}
        assert {each.headers["Proxy-Authorization"] for each in asked} == {"Basic dXNlcjpwQHNz"}

"""No secret is in anything that the programs print or answer: for each way in, in good times and in each kind of trouble."""

import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import trustme

from tests.endpoint.faults import Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.entra import Entra
from tests.support.programs import ACCOUNT, KEY, Server, free_port, router, shard, wait_for
from tests.support.tunnel import Tunnel
from uploader.telemetry import names

PASSWORD = "pr0xy/p@ss:w%rd"
PROXY = "Basic " + b64encode(f"site:{PASSWORD}".encode()).decode()
SIGNATURE = "sIgnatuRe+of/a=sas="
SECRET = "client/s3cret~value"
TOKEN = "eyJ0eXAi.the-bearer-token.c2lnbmVk"
PATHS = ["/", "/readyz", "/livez", "/v1/watch/status", "/v1/watch/status?session=run", "/v1/watch/status?session=no"]


class Site:
    """A store that is reached over TLS, through a proxy that wants a password, by a shard behind a router."""

    def __init__(self, folder: Path, way: str, stack: ExitStack) -> None:
        self.folder = folder / "share/run"
        self.folder.mkdir(parents=True)
        self.said: list[str] = []
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.endpoint = stack.enter_context(Endpoint(context=context, port=free_port()))
        self.endpoint.store.create("uploads")
        self.proxy = stack.enter_context(Tunnel(PROXY))
        self.entra = stack.enter_context(Entra(folder))
        self.entra.answer = 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        threading.Thread(target=self.entra.serve_forever, args=(0.02,), daemon=True).start()
        stack.callback(self.entra.shutdown)
        trust = folder / "authorities.pem"
        trust.write_bytes(authority.cert_pem.bytes() + self.entra.trust.read_bytes())
        url = self.endpoint.url
        port = free_port(multiple=10)
        self.shard = shard(folder, folder / "share", "", port=port)
        self.shard.env |= {
            "HTTPS_PROXY": self.proxy.url.replace("//", f"//site:{quote(PASSWORD, safe='')}@"),
            "SSL_CERT_FILE": str(trust),
        }
        self.shard.env |= {
            "key": {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}"},
            "sas": {
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"BlobEndpoint={url};SharedAccessSignature=sv=2025-05-05&sp=racwdl&sig={quote(SIGNATURE, safe='')}"
                )
            },
            "secret": {
                "NFS_WATCH_ACCOUNT_URL": url,
                "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
                "AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555",
                "AZURE_CLIENT_ID": "the-client",
                "AZURE_CLIENT_SECRET": SECRET,
                "AZURE_AUTHORITY_HOST": self.entra.url,
            },
        }[way]
        stack.callback(self.shard.kill)
        self.router = router(folder, f"http://127.0.0.1:{port // 10}{{ordinal}}")
        stack.callback(self.router.kill)

    def listen(self) -> None:
        """Ask for everything that can be asked for."""
        for server in (self.shard, self.router):
            for path in PATHS:
                answer = httpx.get(server.url + path, timeout=60, trust_env=False)
                self.said += [answer.text, str(answer.headers)]

    def logged(self, *words: str) -> None:
        """Wait until a line of the shard's log has these words, and listen."""

        def there() -> bool:
            return any(all(word in line for word in words) for line in self.shard.log().splitlines())

        wait_for(there, f"{words} in the log")
        self.listen()

    def produce(self, name: str) -> None:
        """Make a file that is finished."""
        (self.folder.parent / name).write_bytes(name.encode())
        (self.folder.parent / name).rename(self.folder / name)

    def everything(self) -> str:
        """Return all that was printed and answered."""
        return "\n".join([*self.said, self.shard.log(), self.router.log()])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def spotless(text: str) -> None:
    assert text
    for secret in (KEY, SIGNATURE, SECRET, TOKEN, PASSWORD, PROXY.removeprefix("Basic ")):
        for form in (secret, quote(secret), quote(secret, safe=""), b64encode(secret.encode()).decode()):
            assert form not in text


def post(server: Server, what: str, **fields: object) -> None:
    answer = httpx.post(f"{server.url}/v1/watch/{what}", json=fields, timeout=60, trust_env=False)
    assert answer.is_success, answer.text


@pytest.mark.parametrize("way", ["key", "sas", "secret"])
def test_nothing_that_the_programs_say_has_a_secret(tmp_path: Path, stack: ExitStack, way: str) -> None:
    """An upload, a refusal, an outage behind the proxy, and a stop."""
    site = Site(tmp_path, way, stack)
    site.shard.up()
    site.router.up()
    post(site.router, "start", session="run")
    site.produce("good.bin")
    site.logged(names.FILE_COMPLETED, "good.bin")
    site.endpoint.faults.add(Refuse(403, "AuthenticationFailed", message="It is refused."), Operation.PUT_BLOB)
    site.produce("refused.bin")
    site.logged(names.FILE_FAILED, "AuthenticationFailed")
    site.endpoint.go_away()
    site.produce("away.bin")
    site.logged(names.STORE_AWAY, "502 Bad Gateway", "does not reach the server")
    site.endpoint.come_back()
    site.logged(names.FILE_COMPLETED, "away.bin")
    post(site.router, "stop", session="run", drain=False)
    site.listen()
    text = site.everything()
    assert "AuthenticationFailed" in "\n".join(site.said), "the status shows no error"
    spotless(text)


@pytest.mark.parametrize("way", ["key", "sas", "secret"])
@pytest.mark.parametrize("trouble", ["the proxy", "the store", "the address"])
def test_a_start_that_is_refused_tells_no_secret(tmp_path: Path, stack: ExitStack, way: str, trouble: str) -> None:
    """The last line names who refused, and the process ends with 1."""
    site = Site(tmp_path, way, stack)
    if trouble == "the proxy":
        site.proxy.wants = "Basic another"
    elif trouble == "the store":
        site.endpoint.faults.add(Refuse(403, "AuthenticationFailed"), times=1000)
    else:
        site.shard.env["HTTPS_PROXY"] = f"http://site:{PASSWORD}@127.0.0.1:1"
    site.shard.start()
    assert site.shard.wait() == 1
    last = site.shard.log().splitlines()[-1]
    assert names.PROCESS_ENDS in last
    assert {"the proxy": "407", "the store": "AuthenticationFailed", "the address": "HTTPS_PROXY"}[trouble] in last
    spotless(site.shard.log())


def test_an_identity_service_that_is_away_at_the_start_is_waited_for(tmp_path: Path, stack: ExitStack) -> None:
    """The shard serves and takes starts meanwhile, goes on by itself, and tells no secret."""
    site = Site(tmp_path, "secret", stack)
    site.entra.answer = 503, {"error": "server_error", "error_description": "Busy."}
    site.shard.up("/livez")
    site.router.up("/livez")
    post(site.shard, "start", session="run")
    site.produce("waits.bin")
    site.logged(names.STORE_AWAY, "the identity service answered 503 server_error")
    assert httpx.get(f"{site.shard.url}/readyz", timeout=60, trust_env=False).status_code == 503
    assert "the identity service answered 503" in "\n".join(site.said)
    site.entra.answer = 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
    site.logged(names.FILE_COMPLETED, "waits.bin")
    text = site.everything()
    assert [text.count(f'"event":"{event}"') for event in (names.STORE_AWAY, names.STORE_BACK)] == [1, 1]
    assert names.FILE_FAILED not in text
    spotless(text)

"""How the program identifies itself to the store: DefaultAzureCredential, SAS or account key; run as a process."""

import base64
import http.server
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import trustme
from azure.storage.blob import (
    AccessPolicy,
    AccountSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_container_sas,
)

from tests.endpoint.faults import Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import need
from tests.support import programs
from tests.support.blobs import CONTAINER, azure_blobs
from tests.support.programs import ACCOUNT, AZURITE, KEY, Server, azurite, connection_string, free_port, wait_for
from uploader.blob.checksum import crc64
from uploader.blob.store import Label
from uploader.errors import BadConfiguration
from uploader.upload.block import block_id

UNSET = ("AZURE_TOKEN_CREDENTIALS", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "IDENTITY_ENDPOINT")


@pytest.fixture(autouse=True)
def no_identity_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    (folder / "run").mkdir(parents=True)
    return folder


def shard(folder: Path, share: Path, env: Mapping[str, str], connection: str = "") -> Server:
    """Make a shard; an empty connection string counts as none."""
    server = programs.shard(folder, share, connection)
    server.env |= env
    return server


def ends(server: Server, within: float = 60) -> str:
    """Start the shard, which must exit with 1 and log one reason; return that reason."""
    server.start()
    try:
        assert server.wait(within) == 1
    finally:
        server.kill()
    lines = [orjson.loads(line) for line in server.log().splitlines()]
    assert "Traceback" not in server.log()
    reasons = [str(line["reason"]) for line in lines if line["event"] == "process.ends"]
    assert len(reasons) == 1
    return reasons[0]


def uploads(server: Server, share: Path) -> None:
    """Start the shard, a session and a small and a large file; wait until both are stored and swept."""
    server.up()
    answer = httpx.post(server.url + "/v1/watch/start", json={"session": "run"}, timeout=60)
    assert answer.status_code == 201, answer.text
    for name, size in (("small.bin", 1000), ("large.bin", 20 << 20)):
        (share / name).write_bytes(name.encode() * (size // len(name)))
        (share / name).rename(share / "run" / name)
    wait_for(lambda: not list((share / "run").iterdir()), "both to be stored and swept")


ACCOUNT_URL = {"NFS_WATCH_ACCOUNT_URL": "https://127.0.0.1:9/devstoreaccount1"}


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        (None, "AZURE_TOKEN_CREDENTIALS"),
        ("EnviromentCredential", "AZURE_TOKEN_CREDENTIALS"),
        ("EnvironmentCredential", "EnvironmentCredential"),
    ],
)
def test_credentials_that_cannot_work_end_the_process_at_once(
    tmp_path: Path, share: Path, selector: str | None, said: str
) -> None:
    """A missing or misspelt selector, or missing credentials, is named at once: no chain fails after 30 s."""
    env = ACCOUNT_URL | ({"AZURE_TOKEN_CREDENTIALS": selector} if selector else {})
    server = shard(tmp_path, share, env)
    reason = ends(server)
    assert said in reason
    assert "ManagedIdentityCredential" not in server.log().replace(reason, ""), "nobody else was asked"


@dataclass
class Tokens:
    """The endpoint of a managed identity in App Service, as DefaultAzureCredential asks it."""

    given: list[str] = field(default_factory=list)
    expires_in: int = 3600
    port: int = 0

    @property
    def env(self) -> dict[str, str]:
        return {
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{self.port}/token",
            "IDENTITY_HEADER": "the-identity-header-is-a-secret",
        }

    def new(self) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": "https://sts.windows.net/t/", "aud": "https://storage.azure.com"}
        claims |= {"nbf": now - 60, "iat": now - 60, "exp": now + self.expires_in, "n": len(self.given)}  # type: ignore[dict-item]
        parts = [_part({"alg": "RS256", "typ": "JWT"}), _part(claims), _part({"signature": "nobody checks"})]
        self.given.append(".".join(parts))
        expires = {"expires_in": str(self.expires_in), "expires_on": str(now + self.expires_in)}
        return {"access_token": self.given[-1], "resource": claims["aud"], "token_type": "Bearer"} | expires


def _part(claims: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=").decode()


@contextmanager
def identity() -> Iterator[Tokens]:
    tokens = Tokens()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["X-IDENTITY-HEADER"] == tokens.env["IDENTITY_HEADER"]
            body = orjson.dumps(tokens.new())
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        tokens.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield tokens
        server.shutdown()


@dataclass
class Certificate:
    """A certificate for 127.0.0.1, and the file by which clients trust it."""

    key: Path
    chain: Path
    trust: Path
    context: ssl.SSLContext

    @property
    def env(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.trust)}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    made = Certificate(
        folder / "key.pem", folder / "chain.pem", folder / "ca.pem", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    )
    issued.private_key_pem.write_to_path(made.key)
    issued.cert_chain_pems[0].write_to_path(made.chain)
    authority.cert_pem.write_to_path(made.trust)
    issued.configure_cert(made.context)
    return made


def test_a_bearer_token_opens_the_store(tmp_path: Path, share: Path, certificate: Certificate) -> None:
    """From the environment to the blob over https; Azurite checks the token's issuer, audience and times."""
    need(str(AZURITE))
    port = free_port()
    argv = [str(AZURITE), "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--loose"]
    argv += ["--disableTelemetry", "--silent", "--oauth", "basic"]
    argv += ["--cert", str(certificate.chain), "--key", str(certificate.key)]
    store = programs.Program(argv, tmp_path / "azurite.log")
    store.start()
    url = f"https://127.0.0.1:{port}/{ACCOUNT}"
    try:
        wait_for(lambda: answers(url, certificate), "Azurite to answer")
        with identity() as tokens:
            server = shard(tmp_path, share, {"NFS_WATCH_ACCOUNT_URL": url} | tokens.env | certificate.env)
            try:
                uploads(server, share)
            finally:
                server.kill()
            assert 0 < len(tokens.given) <= 3, "the token is not kept"
            no_secret_in(server.log(), tokens.env["IDENTITY_HEADER"], *tokens.given)
    finally:
        store.kill()


def answers(url: str, certificate: Certificate) -> bool:
    with suppress(httpx.HTTPError):
        context = ssl.create_default_context(cafile=str(certificate.trust))
        return httpx.get(url, verify=context, timeout=2).status_code > 0
    return False


def no_secret_in(log: str, *secrets: str) -> None:
    assert log
    for secret in secrets:
        assert secret not in log


def test_a_token_that_is_refused_once_is_tried_again(tmp_path: Path, share: Path, certificate: Certificate) -> None:
    """The refusal is an error of that file, small or large, and its next try succeeds."""
    writes = (Operation.PUT_BLOB, Operation.PUT_BLOCK)
    with Endpoint(context=certificate.context) as endpoint, identity() as tokens:
        refused = [endpoint.faults.add(Refuse(401, "InvalidAuthenticationInfo"), operation) for operation in writes]
        server = shard(tmp_path, share, {"NFS_WATCH_ACCOUNT_URL": endpoint.url} | tokens.env | certificate.env)
        try:
            uploads(server, share)
        finally:
            server.kill()
        assert [each.hits for each in refused] == [1, 1]
        assert set(endpoint.store.blobs(CONTAINER)) == {"run/small.bin", "run/large.bin"}
        shown = {request.headers["Authorization"] for operation in writes for request in endpoint.log.of(operation)}
        assert shown <= {f"Bearer {token}" for token in tokens.given}
        no_secret_in(server.log(), *tokens.given)


def test_a_token_that_is_refused_for_good_ends_the_process(
    tmp_path: Path, share: Path, certificate: Certificate
) -> None:
    """The operator reads the service's code, and no token reaches the log."""
    with Endpoint(context=certificate.context) as endpoint, identity() as tokens:
        endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), times=1000)
        server = shard(tmp_path, share, {"NFS_WATCH_ACCOUNT_URL": endpoint.url} | tokens.env | certificate.env)
        reason = ends(server)
    assert "AuthorizationPermissionMismatch" in reason
    no_secret_in(server.log(), *tokens.given)


def test_a_server_that_nobody_vouches_for_gets_no_token(tmp_path: Path, share: Path, certificate: Certificate) -> None:
    """Without a trusted certificate the store counts as away, and no request is sent."""
    with Endpoint(context=certificate.context) as endpoint, identity() as tokens:
        server = shard(tmp_path, share, {"NFS_WATCH_ACCOUNT_URL": endpoint.url} | tokens.env)
        server.start()
        try:
            wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in server.log(), "the refusal in the log")
        finally:
            server.kill()
        assert not endpoint.log.of(Operation.GET_CONTAINER)


def test_a_token_is_never_sent_without_tls(tmp_path: Path, share: Path) -> None:
    """An http:// account URL ends the process before a token leaves it."""
    with Endpoint() as endpoint, identity() as tokens:
        reason = ends(shard(tmp_path, share, {"NFS_WATCH_ACCOUNT_URL": endpoint.url} | tokens.env))
        assert "HTTPS" in reason
        assert not endpoint.log.of(Operation.GET_CONTAINER)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The blob endpoint of an Azurite that has the container."""
    need(str(AZURITE))
    with azurite(tmp_path_factory.mktemp("azurite")) as connection:
        with BlobServiceClient.from_connection_string(connection) as service:
            service.create_container(CONTAINER)
        yield connection.partition("BlobEndpoint=")[2].rstrip(";")


def sas(endpoint: str, signature: str) -> str:
    return f"BlobEndpoint={endpoint};SharedAccessSignature={signature}"


def test_a_connection_string_with_an_accounts_sas(tmp_path: Path, share: Path, emulator: str) -> None:
    """Uploads work with a SAS in place of a key, and the SAS reaches no log."""
    until = datetime.now(UTC) + timedelta(hours=1)
    types = ResourceTypes(service=True, container=True, object=True)
    permission = AccountSasPermissions(read=True, write=True, create=True, delete=True, list=True)
    signature = generate_account_sas(ACCOUNT, KEY, types, permission, until)
    server = shard(tmp_path, share, {}, sas(emulator, signature))
    try:
        uploads(server, share)
    finally:
        server.kill()
    no_secret_in(server.log(), signature, signature.partition("sig=")[2])


UNTIL = datetime.now(UTC) + timedelta(hours=1)
ALL = ContainerSasPermissions(read=True, add=True, create=True, write=True, delete=True, list=True)


@pytest.mark.parametrize(
    "restricted",
    [
        {"permission": ALL, "expiry": UNTIL},
        {"policy_id": "site"},
        {"permission": ALL, "expiry": UNTIL, "ip": "127.0.0.1"},
        {"permission": ALL, "expiry": UNTIL, "protocol": "https,http"},
    ],
    ids=["racwdl", "stored policy", "address", "protocol"],
)
def test_a_containers_sas_is_enough(tmp_path: Path, emulator: str, restricted: dict[str, Any]) -> None:
    """What careful administrators hand out: it may not ask about its container, and has all that uploading needs."""
    policies = {"site": AccessPolicy(permission=ALL, expiry=UNTIL, start=UNTIL - timedelta(days=1))}
    with BlobServiceClient.from_connection_string(connection_string(emulator)) as service:
        service.get_container_client(CONTAINER).set_container_access_policy(policies)
    signature = generate_container_sas(ACCOUNT, CONTAINER, KEY, **restricted)
    data, name = b"content", f"run/{tmp_path.name}"
    with azure_blobs(sas(emulator, "?" + signature), tmp_path) as store:
        label = Label(7, crc64(data), None, 1, None, 0, "run", "x/y")
        store.put(name, data, label, None)
        found = store.head(name)
        assert found
        block = block_id(0, crc64(data))
        store.stage(name, block, memoryview(data), crc64(data))
        assert store.blocks(name).uncommitted == {block: 7}
        store.commit(name, [block], label, found.etag)


@pytest.mark.parametrize(
    ("restricted", "said"),
    [({"protocol": "https"}, "AuthorizationProtocolMismatch")],  # Azurite does not look at the address
)
def test_a_sas_for_another_place_is_named(tmp_path: Path, emulator: str, restricted: dict[str, Any], said: str) -> None:
    """The code, and which part of the signature to change."""
    signature = generate_container_sas(ACCOUNT, CONTAINER, KEY, permission=ALL, expiry=UNTIL, **restricted)
    with pytest.raises(BadConfiguration, match=said) as told, azure_blobs(sas(emulator, signature), tmp_path):
        pass
    assert signature.partition("sig=")[2] not in str(told.value)


@pytest.mark.parametrize("scope", ["expired", "read-only"])
def test_a_sas_that_does_not_do_is_named_and_not_shown(tmp_path: Path, share: Path, emulator: str, scope: str) -> None:
    """Expired or read-only: the process ends with the service's 403, and the log does not show the signature."""
    until = datetime.now(UTC) + timedelta(hours=-1 if scope == "expired" else 1)
    permission = ContainerSasPermissions(read=True, write=scope == "expired", create=scope == "expired")
    signature = generate_container_sas(ACCOUNT, CONTAINER, KEY, permission=permission, expiry=until)
    server = shard(tmp_path, share, {}, sas(emulator, signature))
    reason = ends(server)
    assert "403" in reason
    no_secret_in(server.log(), signature, signature.partition("sig=")[2])


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ("%KEY%", "AZURE_STORAGE_CONNECTION_STRING"),
        ("DefaultEndpointsProtocol=http;AccountName=other;AccountKey=%KEY%;BlobEndpoint=%URL%", "403"),
        (f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey=no base64;BlobEndpoint=%URL%", ""),
    ],
)
def test_a_key_is_in_no_log(tmp_path: Path, share: Path, emulator: str, connection: str, said: str) -> None:
    """Whatever is wrong with a connection string, the line that says so does not show the key."""
    text = connection.replace("%KEY%", KEY).replace("%URL%", emulator)
    server = shard(tmp_path, share, {}, text)
    reason = ends(server)
    assert said in reason
    no_secret_in(server.log(), KEY, "no base64")

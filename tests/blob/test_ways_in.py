"""Each way in, and what is said where it does not do: connection strings, proxies, the store's and the identity's words."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.endpoint.faults import Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Refused
from tests.support.blobs import ServiceStore, azure_blobs
from tests.support.entra import Entra
from tests.support.programs import KEY, connection_string
from uploader.blob import account
from uploader.blob.azure import AzureBlobs
from uploader.blob.checksum import crc64
from uploader.blob.identity import Credential
from uploader.blob.proxy import Proxies
from uploader.blob.reach import Reach
from uploader.blob.store import Label
from uploader.blob.transport import trusting
from uploader.errors import BadConfiguration, StoreAway, StoreError, StoreRefused
from uploader.settings import Settings

PLAIN = f"AccountName=a;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:9/a"
SECRET = "p@s/s:w%rd"
ENCODED = "p%40s%2Fs%3Aw%25rd"


@pytest.mark.parametrize(
    "pasted",
    [
        PLAIN,
        f'"{PLAIN}"',
        f"'{PLAIN};'\n",
        PLAIN.replace(";", " ;\r\n  "),
        f'AccountName=a;AccountKey="{KEY}";BlobEndpoint=http://127.0.0.1:9/a',
        f"AccountName=a;AccountKey={KEY[:40]}\n{KEY[40:]};BlobEndpoint=http://127.0.0.1:9/a",
    ],
    ids=["plain", "quotes", "single quotes", "lines", "quoted value", "wrapped"],
)
def test_a_connection_string_is_taken_as_people_paste_it(pasted: str) -> None:
    """Quotes, blanks and line breaks come from YAML, shells and mails, and mean nothing."""
    assert account.connection_string(pasted) == PLAIN


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        (KEY, "not Name=value"),
        ("AccountName=a;EndpointSuffix=core.windows.net", "neither AccountKey nor SharedAccessSignature"),
        (f"AccountKey={KEY}", "neither AccountName nor BlobEndpoint"),
        (f"AccountName=a;AccountKey={KEY[:-3]}", "not base64"),
        ("BlobEndpoint=https://a.example;SharedAccessSignature=sv=2025&sp=rw", "no sig="),
        (f"https://a.blob.example/c?sv=2025&sig={KEY}", "it is a URL"),
        (" ", "neither AccountKey"),
    ],
)
def test_a_connection_string_that_cannot_do_is_named_without_its_secret(pasted: str, said: str) -> None:
    """The sentence says what to set."""
    with pytest.raises(BadConfiguration, match=said) as told:
        account.connection_string(pasted)
    assert KEY[:30] not in str(told.value)


@pytest.mark.parametrize(
    ("value", "to", "authorization"),
    [
        ("http://proxy:3128", "proxy:3128", ""),
        ("proxy:3128", "proxy:3128", ""),
        ("http://proxy", "proxy:80", ""),
        ("http://[fd00::1]:3128/", "[fd00::1]:3128", ""),
        (f"http://us%40er:{ENCODED}@proxy:3128", "proxy:3128", "Basic dXNAZXI6cEBzL3M6dyVyZA=="),
        (f"user:{ENCODED}@[::1]:3128", "[::1]:3128", "Basic dXNlcjpwQHMvczp3JXJk"),
    ],
)
def test_a_proxy_is_read_as_it_is_written(value: str, to: str, authorization: str) -> None:
    """With and without scheme and port, with user and password, IPv6."""
    proxy = Proxies({"https": value}).on_the_way("https", "store.example", 443)
    assert (str(proxy), proxy.authorization if proxy else None) == (to, authorization)
    assert "dXN" not in repr(proxy)
    assert Proxies({"https": value}).on_the_way("http", "store.example", 80) is None
    assert str(Proxies({"all": value}).on_the_way("http", "store.example", 80)) == to


@pytest.mark.parametrize(
    "value",
    [
        f"http://user:{SECRET}@proxy:3128",
        "http://user:w%rd/p@s@proxy:3128",
        "https://proxy:3128",
        "socks5://proxy",
        "http://:1",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(value: str) -> None:
    """The start ends with the variable's name."""
    with pytest.raises(BadConfiguration, match="HTTPS_PROXY") as told:
        Proxies({"https": value})
    assert "w%rd" not in str(told.value)
    assert "p@s" not in str(told.value)


@pytest.mark.parametrize(
    ("rules", "host", "direct"),
    [
        ("store.example", "store.example", True),
        (".example", "store.example", True),
        ("*.example", "store.example", True),
        ("example", "store.example", True),
        ("ample", "store.example", False),
        ("other, https://store.example/", "store.example", True),
        ("store.example:443", "store.example", True),
        ("store.example:10000", "store.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "store.example", False),
        ("[::1]", "::1", True),
        ("fd00::/8", "fd00::1", True),
        ("*", "store.example", True),
        ("", "store.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(rules: str, host: str, direct: bool) -> None:
    """As other programs read it."""
    assert (Proxies({"https": "proxy:1", "no": rules}).on_the_way("https", host, 443) is None) == direct


def test_a_file_of_authorities_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python passes over such a file without a word, and every server is then refused."""
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        if file.stem == "empty":
            file.touch()
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(BadConfiguration, match="SSL_CERT_FILE="):
            trusting()


def raising(refused: Refused) -> None:
    raise refused


REFUSALS = [
    (
        Refused(403, "AuthorizationPermissionMismatch", "This request is not authorized. RequestId:1"),
        "Data Contributor",
    ),
    (Refused(403, "AuthorizationSourceIPMismatch", "Not from here."), "sip="),
    (Refused(403, "AuthorizationProtocolMismatch", "Not so."), "https://"),
    (Refused(403, "KeyBasedAuthenticationNotPermitted", "Key based authentication is not permitted."), "ACCOUNT_URL"),
    (Refused(403, "AuthenticationFailed", "Server failed to authenticate the request. Make sure."), "renew"),
    (Refused(409, "BlobImmutableDueToPolicy", "This operation is not permitted as the blob is immutable."), "hold"),
    (Refused(409, "BlobArchived", "This operation is not permitted on an archived blob."), "rehydrate"),
    (Refused(409, "InvalidBlobType", "The blob type is invalid for this operation."), "append"),
    (Refused(412, "LeaseIdMissing", "There is currently a lease on the blob."), "lease"),
    (Refused(409, "ResourceTypeMismatch", "The specified resource type does not match."), "directory"),
]


@pytest.mark.parametrize(("refused", "advice"), REFUSALS, ids=[refused.code for refused, _ in REFUSALS])
def test_a_refusal_is_told_in_the_stores_own_words(tmp_path: Path, refused: Refused, advice: str) -> None:
    """Status, code, the message's first sentence, what to do, and the number that support asks for."""
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        endpoint.faults.add(Refuse(refused.status, refused.code, message=refused.message), Operation.GET_BLOCK_LIST)
        with pytest.raises(StoreError) as told:
            store.blocks("run/x")
    text = str(told.value)
    assert f"{refused.status} {refused.code}: {refused.message.split('.')[0]}" in text
    assert advice in text
    assert "(x-ms-request-id " in text
    assert "RequestId:1" not in text


@pytest.mark.parametrize(
    ("header", "said"), [("x-ms-version", "does not know version 2025-05-05"), ("x-ms-meta-x", "(x-ms-meta-x)")]
)
def test_the_header_that_a_refusal_names_is_told(tmp_path: Path, header: str, said: str) -> None:
    """ "400 InvalidHeaderValue" alone says nothing; a version that the store does not know is said as such."""
    fault = Refuse(400, "InvalidHeaderValue", message="The value is not in the correct format.", names=header)
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        endpoint.faults.add(fault, Operation.GET_BLOCK_LIST)
        with pytest.raises(
            StoreRefused, match="400 InvalidHeaderValue: The value is not in the correct format"
        ) as told:
            store.blocks("run/x")
    assert said in str(told.value)


def test_a_container_is_read_and_written_and_never_asked_about(tmp_path: Path) -> None:
    """A signature for one container may not ask about the container; the question leaves nothing behind."""
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), Operation.GET_CONTAINER, times=99)
        endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), Operation.CREATE_CONTAINER, times=99)
        store.ensure_container()
        assert not endpoint.store.blobs("uploads")
        for operation in (Operation.GET_BLOB, Operation.SET_METADATA):
            endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), operation)
            with pytest.raises(BadConfiguration, match="'uploads' cannot be used"):
                store.ensure_container()
        endpoint.store.drop("uploads")
        with pytest.raises(BadConfiguration, match="does not exist and may not be created"):
            store.ensure_container()


@pytest.mark.parametrize("content", [b"theirs", b""])
def test_a_blob_of_another_tool_below_our_name_ends_no_shard(tmp_path: Path, content: bytes) -> None:
    """The question is about a blob that nobody can have: what lies beside it is neither read nor written."""
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        store.ensure_container()
        store.put(".nfs-watch", content, Label(len(content), crc64(content), None, 1, None, 0, "run", "x/y"), None)
        before = store.head(".nfs-watch")
        store.ensure_container()
        assert store.head(".nfs-watch") == before


def test_a_wrong_clock_is_waited_for(tmp_path: Path) -> None:
    """A device without a battery gets its time from the network, later: nothing is wrong with its credentials."""
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        endpoint.faults.skew = 86400.0 * 3650
        with pytest.raises(StoreAway, match="minutes off"):
            store.ensure_container()


def test_a_certificate_that_is_not_in_its_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wrong clock as TLS sees it: the text says what this machine's clock says."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with (
        Endpoint(context=context) as endpoint,
        pytest.raises(StoreAway, match=r"is the clock of this machine right\? It says 20"),
        azure_blobs(endpoint.connection_string, tmp_path),
    ):
        pass


def test_an_outage_is_told_once_and_holds_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    """An hour of questions without an answer is one line; the first answer lets the workers go on."""
    answers: list[str] = [*["away (x-ms-request-id 1)", "away (x-ms-request-id 2)"] * 360, "other", "other", ""]
    asked: list[bool] = []

    def ask() -> None:
        asked.append(reach.open.is_set())
        if text := answers.pop(0):
            raise StoreAway(text)

    reach = Reach(ask)
    with caplog.at_level("INFO"):
        reach.settle(sleep=lambda _: None)
    assert [record.message for record in caplog.records] == ["store.away", "store.away", "store.back"]
    assert len(asked) == 723
    assert not any(asked)
    assert (reach.waits_for, reach.answered, reach.open.is_set()) == (None, True, True)
    reach.doubt()
    assert not reach.open.is_set()


def test_an_unanswered_call_closes_the_way_until_the_store_answers(tmp_path: Path) -> None:
    """Nothing new is begun after a call without an answer; any refusal is an answer."""
    with Endpoint(ServiceStore()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        store.reach.settle()
        endpoint.faults.add(Refuse(403, "AuthorizationFailure"), Operation.HEAD_BLOB)
        with pytest.raises(StoreRefused):
            store.head("run/x")
        assert store.reach.open.is_set()
        endpoint.faults.add(Refuse(400, "InvalidInput"), Operation.HEAD_BLOB)
        endpoint.faults.add(Refuse(503), Operation.HEAD_BLOB, times=4)
        with pytest.raises(StoreRefused):
            store.head("run/x")
        with pytest.raises(StoreAway):
            store.head("run/x")
        assert not store.reach.open.is_set()


@pytest.fixture
def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entra]:
    with Entra(tmp_path) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in {
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555",
            "AZURE_CLIENT_ID": "the-client",
            "AZURE_CLIENT_SECRET": SECRET,
            "AZURE_AUTHORITY_HOST": server.url,
            "SSL_CERT_FILE": str(server.trust),
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        yield server
        server.shutdown()


def test_a_secret_gets_a_token_over_our_own_transport(entra: Entra) -> None:
    """Proxies and trust are thereby the store's own."""
    entra.answer = 200, {"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"}
    assert Credential().get_token_info("https://storage.azure.com/.default").token == "the-token"


def test_a_certificate_gets_a_token(entra: Entra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file with key and certificate; a file that holds neither is named."""
    entra.answer = 200, {"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"}
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    file = tmp_path / "certificate.pem"
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(file))
    file.write_text("no certificate")
    with pytest.raises(BadConfiguration, match="its credentials are not usable"):
        Credential()
    file.write_bytes(
        trustme.CA().issue_cert("the.client", key_type=trustme.KeyType.RSA).private_key_and_cert_chain_pem.bytes()
    )
    assert Credential().get_token_info("https://storage.azure.com/.default").token == "the-token"


NO = {
    "error": "invalid_client",
    "error_description": "AADSTS7000215: Invalid client secret provided. Ensure that.\r\nTrace ID: 1",
}


@pytest.mark.parametrize(
    ("status", "answer", "skew", "kind", "said"),
    [
        (401, NO, 0, StoreRefused, "401 invalid_client: AADSTS7000215: Invalid client secret provided"),
        (401, NO, 86400, StoreAway, "minutes off"),
        (400, {"error": "temporarily_unavailable"}, 0, StoreAway, "temporarily_unavailable"),
        (503, {"error": "server_error"}, 0, StoreAway, "503"),
        (403, b"<html>Welcome to our hotel</html>", 0, StoreAway, "something on the way"),
    ],
)
def test_only_an_answer_that_says_no_is_a_wrong_configuration(
    entra: Entra, status: int, answer: Mapping[str, object] | bytes, skew: float, kind: type[StoreError], said: str
) -> None:
    """Everything else passes by itself, and is waited for."""
    entra.answer, entra.skew = (status, answer), skew
    with pytest.raises(kind, match=said) as told:
        Credential().get_token_info("https://storage.azure.com/.default")
    assert SECRET not in str(told.value)
    assert "Trace ID" not in str(told.value)


def test_an_identity_service_that_is_away_is_waited_for(entra: Entra, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address, no connection, no trust: no answer."""
    for url in ("https://no.such.host.invalid", "https://127.0.0.1:9"):
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", url)
        with pytest.raises(StoreAway, match="the identity service does not answer"):
            Credential().get_token_info("https://storage.azure.com/.default")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", entra.url)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreAway, match="CERTIFICATE_VERIFY_FAILED"):
        Credential().get_token_info("https://storage.azure.com/.default")


@pytest.mark.usefixtures("entra")
def test_credentials_that_are_incomplete_are_named_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person has to set what is missing."""
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    with pytest.raises(StoreRefused, match=r"the credentials cannot be used: .*EnvironmentCredential"):
        Credential().get_token_info("https://storage.azure.com/.default")
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", "/nowhere/certificate.pem")
    with pytest.raises(BadConfiguration, match=r"/nowhere/certificate\.pem"):
        Credential()


def test_workload_identity_sends_the_projected_token(
    entra: Entra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three variables and a file; a file that is missing is named."""
    entra.answer = 200, {"access_token": "the-token", "expires_in": 3600, "token_type": "Bearer"}
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(StoreRefused, match="No such file"):
        Credential().get_token_info("https://storage.azure.com/.default")
    (tmp_path / "token").write_text("projected")
    assert Credential().get_token_info("https://storage.azure.com/.default").token == "the-token"


def test_a_token_never_goes_without_tls() -> None:
    """An http:// account is refused before anything is sent."""
    given = {"root": "/", "container": "uploads", "ordinal": 0, "account_url": "http://127.0.0.1:9/a"}
    with pytest.raises(BadConfiguration, match="HTTPS"):
        AzureBlobs(Settings(**given))  # type: ignore[arg-type]


def test_an_address_that_has_a_signature_is_told_without_it(tmp_path: Path) -> None:
    """http.client repeats the address that it does not like."""
    text = f"BlobEndpoint=http://127.0.0.1:9/a;SharedAccessSignature=sv=2025&sig={KEY}\x7f"
    with pytest.raises(StoreAway) as told, azure_blobs(text, tmp_path):
        pass
    assert KEY[:20] not in str(told.value)
    assert connection_string("") not in str(told.value)

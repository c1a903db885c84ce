"""Bad requests, settings and files against the real programs: each is answered with a reason, and work goes on."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.settings import load as load_router
from tests.demo.site import Site, files_in
from tests.endpoint.server import Endpoint
from tests.need import absent, need
from tests.support import programs
from tests.support.programs import Server, wait_for
from uploader.errors import BadConfiguration
from uploader.settings import Settings, load

START, STOP = "/v1/watch/start", "/v1/watch/stop"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint())
        it = Site(tmp_path_factory.mktemp("bad"), stack, endpoint.connection_string, max_sessions=20)
        # As root every file can be read: take that from the shards, and from nobody else.
        for shard in it.shards:
            if os.geteuid() == 0:
                need("setpriv")
                shard.argv = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *shard.argv]
                shard.kill()
                shard.up()
        yield it


@pytest.fixture(params=["shard", "router"])
def server(site: Site, request: pytest.FixtureRequest) -> Server:
    return site.router if request.param == "router" else site.shards[0]


def refusal(response: httpx.Response, status: int, code: str) -> str:
    """Return the sentence of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["code"]) == (status, code)
    return str(body["detail"])


NAMES = ["a/b", "/a", "..", ".", "a..b", ".hidden", "a.", "a\x01b", "a\n", "a b", "é", "x" * 300, "", 5, ["a"]]
EXTENSIONS = [
    ["bin"],
    ["."],
    [""],
    [".a/b"],
    [".a\n"],
    ["." + "x" * 64],
    [1],
    ".bin",
    [f".{n}" for n in range(65)],
    [".a"] * 65,
    {".a": 1},
]
BODIES: list[tuple[str, bytes | dict[str, Any], str]] = [
    (START, b"{", "JSON"),
    (START, b'{"session": "a"', "JSON"),
    (START, b"\xff\xfe", "JSON"),
    (START, b"[" * 60_000, "JSON"),
    (START, b'{"session": NaN}', "JSON"),
    (START, b"[]", "JSON object"),
    (START, b'"run-1"', "JSON object"),
    (START, b"null", "JSON object"),
    (START, {"session": "a", "colour": "red"}, "session, extensions, shard"),
    (START, {"session": "a", "shard": -1}, "greater than or equal to 0"),
    (START, {"session": "a", "shard": "1"}, "integer"),
    (START, {"session": "a", "shard": 2}, "2"),
    (START, {"session": "a", "shard": True}, "integer"),
    (STOP, {}, "session is missing"),
    (STOP, {"session": "a", "drain": "no"}, "boolean"),
    (STOP, {"session": "a", "force": True}, "session, drain"),
    *((START, {"session": name}, "session") for name in NAMES),
    *((STOP, {"session": name}, "session") for name in NAMES),
    *((START, {"session": "a", "extensions": value}, "extension") for value in EXTENSIONS),
]


def test_a_bad_request_gets_400_and_a_sentence_and_nothing_is_written(site: Site, server: Server) -> None:
    """Whatever a client sends, the share stays as it is, and the client learns the rule."""
    before = files_in(site.share), sorted(path.name for path in site.share.iterdir())
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for path, body, words in BODIES:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            said = refusal(client.post(path, content=sent), 400, "bad-request")
            assert words in said, (body, said)
    assert (files_in(site.share), sorted(path.name for path in site.share.iterdir())) == before


def test_the_sentence_about_a_name_says_what_is_allowed(site: Site, server: Server) -> None:
    """The caller can correct the request without reading the documentation."""
    said = refusal(site.ask("start", server, session="a/b"), 400, "bad-request")
    assert "1 to 128 of A-Z a-z 0-9 . _ -" in said
    said = refusal(site.ask("start", server, session="a", extensions=["bin"]), 400, "bad-request")
    assert "'bin'" in said
    assert "a dot and 1 to 63 characters, such as .bin" in said


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_10_mib_gets_413_and_is_not_read_to_its_end(server: Server, *, chunked: bool) -> None:
    """The answer comes while the rest of the body is still to come."""
    part = b'{"session": "' + b"x" * 70_000
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {10 << 20}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(f"POST {START} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n\r\n".encode())
        with suppress(ConnectionError):  # it may have closed the connection already: its answer is there
            client.sendall(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        reply = http.client.HTTPResponse(client)
        reply.begin()
        headers, body = dict(reply.getheaders()), reply.read()
    assert "65536 bytes" in refusal(httpx.Response(reply.status, headers=headers, content=body), 413, "too-large")


def test_an_unknown_session_gets_404(site: Site, server: Server) -> None:
    """A misspelt name is told apart from a bad one."""
    assert "nobody" in refusal(site.ask("stop", server, session="nobody"), 404, "unknown-session")
    assert "nobody" in refusal(site.ask("status?session=nobody", server), 404, "unknown-session")
    assert "1 to 128" in refusal(site.ask("status?session=../x", server), 400, "bad-request")


def test_an_unknown_path_and_a_wrong_method_are_problems_too(site: Site, server: Server) -> None:
    """A client needs one way to read errors."""
    refusal(site.ask("begin", server), 404, "not-found")
    refusal(site.ask("start", server), 405, "method-not-allowed")


# Settings

REQUIRED = {"ROOT": "/tmp", "CONTAINER": "uploads"}
CONNECTION = programs.connection_string("http://127.0.0.1:9/devstoreaccount1")
WRONG: dict[str, dict[str, str]] = {  # by variable: wrong values, and a word of the rule for each
    "CONTAINER": {"Uploads": "pattern", "a": "pattern", "a--b": "pattern", "x" * 64: "pattern"},
    "ACCOUNT_URL": {"account": "pattern", "ftp://a": "pattern", "https://a/?sig=1": "pattern"},
    "BLOB_PREFIX": {"/a": "pattern", "a\\b": "pattern", "a\nb": "pattern", "x" * 513: "512"},
    "EXTENSIONS": {"bin": "dot", ".bin,h5": "dot", ".a/b": "dot", ".tmp": "ever sent"},
    "TEMPORARY": {".a/b": "slash", "." + "a" * 64: "1 to 64"},
    "STAGING": {"/no/such/folder": "folder", "/tmp": "apart from NFS_WATCH_ROOT=/tmp"},
    "STAGING_SIZE": {"-1": "0", "1G": "integer"},
    "CLOSE_WRITE": {"perhaps": "boolean"},
    "ON_CONFLICT": {"keep": "'snapshot', 'replace' or 'refuse'"},
    "SCAN_INTERVAL": {"0": "0.05", "often": "number", "nan": "3600"},
    "SETTLE": {"-1": "0", "x": "number", "inf": "86400"},
    "SETTLE_EMPTY": {"-1": "0", "x": "number"},
    "QUEUE_SIZE": {"0": "1", "x": "integer"},
    "CONNECTIONS": {"0": "1", "1025": "1024", "x": "integer"},
    "MEMORY": {"1": "1048576", "8388608": "at least twice NFS_WATCH_BLOCK_SIZE=8388608", "x": "integer"},
    "BLOCK_SIZE": {"1": "65536", "9999999999": "4194304000"},
    "CHECKSUM": {"sha1": "'crc64' or 'md5'"},
    "CONTENT_MD5": {"perhaps": "boolean"},
    "MAX_UPLOAD_RATE": {"-1": "0", "10M": "integer"},
    "RETENTION": {"-1": "0", "x": "number", "inf": "31622400", "nan": "31622400"},
    "RESULT_RETENTION": {"-1": "0", "x": "number"},
    "SWEEP_INTERVAL": {"0": "0.05", "x": "number"},
    "MAX_SESSIONS": {"0": "1", "x": "integer"},
    "NFS_TIMEOUT": {"0": "1", "x": "number"},
    "ORDINAL": {"-1": "0", "x": "integer"},
    "REPLICAS": {"-1": "0", "x": "integer"},
    "STATEFULSET": {"A": "pattern", "a/b": "pattern"},
    "PORT": {"0": "1", "65536": "65535", "http": "integer"},
    "CLIENTS": {"15": "16", "100001": "100000", "many": "integer"},
    "NAMES": {"jetson.example.org:8080": "no port", "http://jetson": "no port"},
}
WRONG_FOR_ROUTER = {
    "SHARD_URL": {"http://nfs-watch": "{ordinal}", "ftp://{ordinal}": "http", "http://{ordinal}{pod}": "{ordinal}"},
    "REPLICAS": {"-1": "0 to 1000", "x": "whole number"},
    "STATEFULSET": {"A": "a-z"},
    "PORT": {"0": "1 to 65535", "http": "whole number"},
    "CLIENTS": {"15": "16 to 100000", "many": "whole number"},
    "NAMES": {"jetson.example.org:8080": "without a port"},
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which only the required variables are set."""
    for name in [name for name in os.environ if name.startswith(("NFS_WATCH_", "AZURE_")) or name == "POD_NAME"]:
        monkeypatch.delenv(name)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(f"NFS_WATCH_{name}", value)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", CONNECTION)
    return monkeypatch


def test_every_setting_has_a_wrong_value_below() -> None:
    """A new setting is not forgotten in these tests."""
    fields = {field.upper() for field in Settings.model_fields}
    assert fields - {"ROOT", "HOST", "CONNECTION_STRING"} == WRONG.keys()  # these show when the program uses them


@pytest.mark.parametrize(
    ("name", "value", "allowed"), [(name, *one) for name, values in WRONG.items() for one in values.items()]
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    environment: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """The operator reads variable, value and rule in the pod's last line."""
    if name == "ACCOUNT_URL":
        environment.delenv("AZURE_STORAGE_CONNECTION_STRING")
    environment.setenv(f"NFS_WATCH_{name}", value)
    with pytest.raises(BadConfiguration) as raised:
        load()
    said = str(raised.value)
    assert said.startswith(f"NFS_WATCH_{name}={value}"), said
    assert allowed in said.removeprefix(f"NFS_WATCH_{name}={value}"), said


@pytest.mark.parametrize("how", ["itself", "in it", "around it", "linked", "linked in it", "mounted", "mounted around"])
def test_copies_are_never_kept_where_the_share_is(tmp_path: Path, how: str) -> None:
    """A sweep of old copies there would delete the sources themselves."""
    root = tmp_path / "outer/share"
    (root / "run").mkdir(parents=True)
    (root / "run/precious.bin").write_bytes(b"precious")
    staging = {"itself": root, "in it": root / "run", "around it": root.parent}.get(how, tmp_path / "other")
    if how.startswith("linked"):
        staging.symlink_to(root / "run" if "in it" in how else root)
    staging.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if how.startswith("mounted"):
            if os.geteuid() != 0:
                absent("only root can mount")
            subprocess.run(["mount", "--bind", root.parent if "around" in how else root, staging], check=True)
            stack.callback(lambda: subprocess.run(["umount", "--lazy", staging], check=True))
        said = ends("uploader", NFS_WATCH_ROOT=str(root), NFS_WATCH_STAGING=str(staging))
        assert said.startswith(f"NFS_WATCH_STAGING={staging}: it has to be apart from NFS_WATCH_ROOT={root}")
        assert (root / "run/precious.bin").read_bytes() == b"precious"


def test_a_folder_beside_the_share_is_apart(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A common beginning of two names does not make one folder part of the other."""
    for name in ("share", "share-copies"):
        (tmp_path / name).mkdir()
    environment.setenv("NFS_WATCH_ROOT", str(tmp_path / "share"))
    environment.setenv("NFS_WATCH_STAGING", str(tmp_path / "share-copies"))
    assert load().staging == tmp_path / "share-copies"


@pytest.mark.parametrize(
    ("name", "value", "allowed"), [(name, *one) for name, values in WRONG_FOR_ROUTER.items() for one in values.items()]
)
def test_a_wrong_setting_of_the_router_is_named_with_what_is_allowed(
    environment: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """The router's settings are read by other code, with the same promise."""
    environment.setenv(f"NFS_WATCH_{name}", value)
    with pytest.raises(BadConfiguration) as raised:
        load_router()
    said = str(raised.value)
    assert said.startswith(f"NFS_WATCH_{name}={value}: "), said
    assert allowed in said.removeprefix(f"NFS_WATCH_{name}={value}"), said


@pytest.mark.parametrize("name", [f"NFS_WATCH_{name}" for name in REQUIRED])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named(environment: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    """An empty variable counts as missing."""
    environment.delenv(name)
    if value is not None:
        environment.setenv(name, value)
    with pytest.raises(BadConfiguration, match=f"^{name} is not set$"):
        load()


def test_the_store_is_named_once(environment: pytest.MonkeyPatch) -> None:
    """Two stores, or none, is an error that shows no key."""
    both = "exactly one of NFS_WATCH_ACCOUNT_URL and AZURE_STORAGE_CONNECTION_STRING"
    environment.setenv("NFS_WATCH_ACCOUNT_URL", "https://account.blob.core.windows.net")
    with pytest.raises(BadConfiguration, match=both) as raised:
        load()
    assert programs.KEY not in str(raised.value)
    environment.delenv("NFS_WATCH_ACCOUNT_URL")
    environment.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(BadConfiguration, match=both):
        load()


def ends(program: str, **variables: str | None) -> str:
    """Run a program that cannot start; return why it says it ends. None takes a variable away."""
    required = {f"NFS_WATCH_{name}": value for name, value in REQUIRED.items()}
    argv = [sys.executable, "-m", program]
    with tempfile.TemporaryDirectory() as root:  # it may get as far as to make its own folder there
        fitting: dict[str, str | None] = {
            **required,
            "NFS_WATCH_ROOT": root,
            "AZURE_STORAGE_CONNECTION_STRING": CONNECTION,
        }
        fitting |= {"NFS_WATCH_REPLICAS": "1", **variables}
        env = programs.Program([], Path()).env | {name: value for name, value in fitting.items() if value is not None}
        run = subprocess.run(argv, env=env, cwd=programs.TOP, text=True, capture_output=True, timeout=60, check=False)
    assert run.returncode == 1, run
    assert programs.KEY not in run.stdout + run.stderr
    lines = [json.loads(line) for line in (run.stdout + run.stderr).splitlines()]  # no traceback
    (last,) = [line for line in lines if line["level"] not in {"info", "warning"}]
    assert last == lines[-1]
    assert last["exit_code"] == 1
    return str(last["reason"])


def test_a_program_that_cannot_start_says_why_in_one_line_and_ends_with_1(tmp_path: Path) -> None:
    """Each cause names its variable, and several wrong settings are named together."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for program in ("uploader", "router"):
            said = ends(program, NFS_WATCH_HOST="127.0.0.1", NFS_WATCH_PORT=port)
            assert said.startswith(f"NFS_WATCH_PORT={port}: ")
    for root in (tmp_path / "share", Path("/etc/passwd")):
        assert ends("uploader", NFS_WATCH_ROOT=str(root)).startswith(f"NFS_WATCH_ROOT={root}: the share is not there")
    assert "NFS_WATCH_HOST=no.such.host.invalid" in ends("uploader", NFS_WATCH_HOST="no.such.host.invalid")
    several = ends("uploader", NFS_WATCH_ROOT=None, NFS_WATCH_PORT="x", NFS_WATCH_CHECKSUM="sha1")
    assert all(f"NFS_WATCH_{name}" in several for name in ("ROOT", "PORT", "CHECKSUM"))
    assert "NFS_WATCH_REPLICAS" in ends("router", NFS_WATCH_REPLICAS=None)
    said = ends("uploader", AZURE_STORAGE_CONNECTION_STRING="nonsense")
    assert said.startswith("AZURE_STORAGE_CONNECTION_STRING: ")
    assert "nonsense" not in said


def test_an_account_url_without_a_selector_of_credentials_names_the_variable() -> None:
    """Without a selector the SDK would try one credential after the other for half a minute."""
    url = "https://account.blob.core.windows.net"
    said = ends("uploader", AZURE_STORAGE_CONNECTION_STRING=None, NFS_WATCH_ACCOUNT_URL=url)
    assert said.startswith("NFS_WATCH_ACCOUNT_URL: ")
    assert "AZURE_TOKEN_CREDENTIALS" in said


# Files


def test_odd_files_are_shown_with_their_reason_and_the_others_go_on(site: Site, tmp_path: Path) -> None:
    """Links, sockets, pipes, unreadable files, and names that no blob can have."""
    folder, secret = site.share / "odd", tmp_path / "secret.bin"
    (folder / "closed").mkdir(parents=True)
    secret.write_bytes(b"secret")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other.bin").write_bytes(b"other")
    (folder / "link.bin").symlink_to(secret)
    (folder / "dangling.bin").symlink_to(tmp_path / "nothing")
    (folder / "folder.bin").symlink_to(outside)
    os.mkfifo(folder / "pipe.bin")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(folder, os.O_PATH)
    listener.bind(f"/proc/self/fd/{here}/socket.bin")
    names = [b"\xff\xfe.bin", b"new\nline.bin", b"back\\slash.bin", b"ends-with-a-dot."]
    for name in names:
        (Path(os.fsdecode(bytes(folder) + b"/" + name))).write_bytes(b"odd")
    (folder / "unreadable.bin").write_bytes(b"unreadable")
    (folder / "unreadable.bin").chmod(0)
    (folder / "closed/inside.bin").write_bytes(b"inside")
    (folder / "closed").chmod(0)
    (folder / "good-1.bin").write_bytes(b"good")
    site.call("start", session="odd")
    (folder / "good-2.bin").write_bytes(b"good")
    reasons = {
        "link.bin": "symbolic link",
        "dangling.bin": "symbolic link",
        "folder.bin": "symbolic link",
        "pipe.bin": "not a regular file",
        "socket.bin": "not a regular file",
        "\\udcff\\udcfe.bin": "not UTF-8",
        "new\nline.bin": "control character",
        "back\\slash.bin": "backslash",
        "ends-with-a-dot.": "ends with a dot",
        "unreadable.bin": "Permission denied",
        "closed": "Permission denied",
    }
    try:
        wait_for(lambda: site.session("odd")["files"]["failed"] == len(reasons), "all odd files to be shown")
        wait_for(lambda: site.session("odd")["files"]["completed"] == 2, "the good files")
        shown = {one["path"]: one["error"] for one in site.session("odd")["current"]}
        assert shown.keys() == reasons.keys()
        for path, reason in reasons.items():
            assert reason in shown[path], (path, shown[path])

        def told() -> int:
            return len(re.findall(r'"file.failed"', "".join(shard.log() for shard in site.shards)))

        wait_for(lambda: told() >= len(reasons), "a line for each")
        # A file that is mended goes on; a file that can never be sent does not keep a session from ending.
        (folder / "unreadable.bin").chmod(0o644)
        (folder / "closed").chmod(0o755)
        site.call("stop", session="odd")
        wait_for(lambda: "odd.json" not in site.records(), "the session to end", 60)
    finally:
        listener.close()
        os.close(here)
    assert secret.read_bytes() == b"secret"
    assert (outside / "other.bin").read_bytes() == b"other"
    assert len(files_in(folder)) == 9

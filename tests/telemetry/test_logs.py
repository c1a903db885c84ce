"""Logs: every line on stdout is one JSON object, has its event, and holds no secret."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.demo.site import Site
from tests.endpoint.faults import Refuse, Reset
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.programs import ACCOUNT, KEY, wait_for
from tests.support.receiver import over_http
from tests.support.telemetry import run
from uploader.telemetry import names

SIGNATURE = "sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D"
LOG = "log = logging.getLogger('uploader.test')\n"
TOKEN = "very-secret-token-of-the-collector"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def checked(text: str, service: str) -> list[dict[str, Any]]:
    """Return the lines; each must have the fields that docs/operations.md promises."""
    found = []
    for line in text.splitlines():
        one = orjson.loads(line)
        assert datetime.fromisoformat(one["time"]).utcoffset() == timedelta(0), line
        assert one["level"] in {"debug", "info", "warning", "error", "critical"}, line
        assert one["service"] == service, line
        assert " " not in one["event"], line
        found.append(one)
    return found


def secrets() -> list[str]:
    """Return what must never be seen: whole, or the part that survives being split or quoted."""
    return [KEY, KEY[:20], KEY.replace("+", "%2B").replace("/", "%2F")[:40], SIGNATURE, SIGNATURE[4:20], TOKEN]


def spotless(text: str) -> None:
    for secret in secrets():
        assert secret not in text, f"{secret} is in the output"


def test_every_line_of_both_programs_is_json_in_good_days_and_bad_ones(tmp_path: Path, stack: ExitStack) -> None:
    """Uploads, failures, refused requests, nonsense on the port, a restart: every line is JSON without a secret."""
    endpoint = stack.enter_context(Endpoint())
    endpoint.faults.add(Refuse(403, "AuthenticationFailed"), Operation.PUT_BLOB, times=2)
    endpoint.faults.add(Reset(), Operation.PUT_BLOB, times=5)
    for variable, value in (
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{TOKEN}"),
    ):
        os.environ[variable] = value
        stack.callback(os.environ.pop, variable)
    site = Site(tmp_path, stack, endpoint.connection_string)
    folder = site.share / "run-1"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.bin").write_bytes(b"x" * number)
    (folder / "link.bin").symlink_to("/etc/hostname")
    os.mknod(os.fsencode(folder) + b"/half-\xff.bin")
    shard = site.shards[site.call("start", session="run-1")["shard"]]
    for program in (shard, site.router):
        with socket.create_connection(("127.0.0.1", program.port)) as nonsense:
            nonsense.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            nonsense.recv(100)
    assert site.ask("start", session="../x").status_code == 400
    wait_for(lambda: site.session("run-1")["files"]["completed"] >= 17, "the uploads", 60)
    wait_for(lambda: names.FILE_FAILED in shard.log(), "a failure to be told")
    for program in (shard, site.router):
        program.kill()
        program.start()
        program.ready()
    wait_for(lambda: names.SESSION_RESUMED in shard.log(), "the session to go on")
    text = {"uploader": "".join(one.log() for one in site.shards), "router": site.router.log()}
    for service, said in text.items():
        spotless(said)
        lines = checked(said, service)
        assert "Invalid HTTP request" in str([one["message"] for one in lines if one["event"] == "uvicorn.error"])
        assert [one for one in lines if one["event"] == names.PROCESS_STARTED]
    shards = checked(text["uploader"], "uploader")
    events = {one["event"] for one in shards}
    assert {names.SESSION_STARTED, names.FILE_COMPLETED, names.FILE_FAILED, names.SESSION_RESUMED} <= events
    for one in shards:
        if one["event"] == names.FILE_FAILED:
            assert {"session", "path", "attempt", "error"} <= one.keys()
        if one["event"] == names.FILE_COMPLETED:
            assert {"session", "path", "bytes", "blob", "crc64", "etag", "attempts"} <= one.keys()


@pytest.mark.parametrize(
    "connection",
    [
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY[:-4]}AA==;BlobEndpoint={{url}};",
        f"BlobEndpoint={{url}};SharedAccessSignature=sv=2023-11-03&ss=b&srt=sco&sp=rwc&se=2099-01-01&{SIGNATURE}",
        f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://127.0.0.1:9/{ACCOUNT};",
        f"AccountName={ACCOUNT};AccountKey={KEY};Nonsense",
        f"AccountKey={KEY}",
        f"BlobEndpoint=;AccountKey={KEY};{SIGNATURE}",
    ],
)
def test_credentials_that_are_refused_or_wrong_are_never_shown(
    tmp_path: Path, stack: ExitStack, connection: str
) -> None:
    """The shard ends with 1 and one clear line, or waits; key and signature appear nowhere."""
    endpoint = stack.enter_context(Endpoint())
    endpoint.faults.add(Refuse(403, "AuthenticationFailed"), times=1000)
    share = tmp_path / "share"
    (share / "run-1").mkdir(parents=True)
    (share / "run-1/a.bin").write_bytes(b"content")
    shard = programs.shard(tmp_path, share, connection.format(url=endpoint.url))
    stack.callback(shard.kill)
    shard.start()
    assert shard.process is not None
    if "127.0.0.1:9/" in connection:
        shard.ready("/livez")
        httpx.post(f"{shard.url}/v1/watch/start", json={"session": "run-1"}, trust_env=False, timeout=60)
        wait_for(lambda: names.STORE_AWAY in shard.log(), "the reason for waiting", 60)
    else:
        assert shard.wait() == 1
        assert checked(shard.log(), "uploader")[-1]["event"] == names.PROCESS_ENDS
    spotless(shard.log())
    checked(shard.log(), "uploader")


def said(code: str, *, fails: bool = False) -> list[dict[str, Any]]:
    """Run Python code with the uploader's logging and return the lines."""
    return checked(run(LOG + code, fails=fails), "uploader")


def test_an_exception_that_nobody_caught_is_a_line() -> None:
    """The log has the traceback as one JSON object."""
    [line] = said("raise ValueError('broken')", fails=True)
    assert (line["event"], line["level"]) == (names.PROCESS_FAILED, "critical")
    assert "ValueError: broken" in line["trace"]


def test_an_exception_in_a_thread_of_a_library_is_a_line() -> None:
    """A library's thread that dies is seen, and the process goes on."""
    code = "t = threading.Thread(target=lambda: 1 / 0, name='theirs'); t.start(); t.join()"
    [line] = said(code)
    assert (line["event"], line["in_thread"]) == (names.THREAD_FAILED, "theirs")
    assert "ZeroDivisionError" in line["trace"]


def test_an_exception_in_a_thread_of_ours_ends_the_process_with_a_line() -> None:
    """A shard without its sweeper must not look healthy."""
    code = "from uploader.thread import spawn; spawn('sweeper', lambda: 1 / 0).join(10); print('not reached')"
    [line] = said(code, fails=True)
    assert (line["event"], line["in_thread"], line["level"]) == (names.THREAD_FAILED, "sweeper", "critical")


def test_an_exception_that_python_ignores_is_a_line() -> None:
    """Python would print a finaliser's exception as plain text."""
    [line] = said("class Bad:\n    def __del__(self): raise OSError('late')\nBad()")
    assert line["event"] == names.ERROR_IGNORED
    assert "OSError: late" in line["trace"]


def test_a_warning_is_a_line() -> None:
    """Python would print a warning as plain text."""
    [line] = said("import warnings; warnings.warn('old ways')")
    assert (line["event"], line["level"]) == ("py.warnings", "warning")
    assert "old ways" in line["message"]


def test_an_exception_of_the_event_loop_is_a_line() -> None:
    """asyncio's report of a failed callback is JSON too."""
    code = """
import asyncio
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
asyncio.run(main())
"""
    [line] = said(code)
    assert (line["event"], line["level"]) == ("asyncio", "error")
    assert "ZeroDivisionError" in line["trace"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("'half \\udcff'", "half \udcff"),
        ("2 ** 80", 2**80),
        ("b'bytes'", "b'bytes'"),
        ("{1: 'one'}", {"1": "one"}),
        ("{(1, 2): 'odd'}", None),
        ("object", "<class 'object'>"),
        ("'line\\nbreak'", "line\nbreak"),
        ("float('nan')", None),
    ],
)
def test_whatever_stands_beside_an_event_the_line_is_valid(value: str, shown: Any) -> None:
    """No value can break a line or lose it."""
    found = json.loads(run(f"{LOG}log.info('x.y', extra={{'value': {value}}})"))
    assert found["event"] == "x.y"
    assert shown is None or found["value"] == shown


def test_a_library_that_formats_wrongly_still_gives_a_line() -> None:
    """The unformatted text is better than no line."""
    [line] = said("logging.getLogger('lib').warning('%s and %s', 1)")
    assert (line["event"], line["message"]) == ("lib", "%s and %s")


def test_the_telemetrys_own_machinery_says_a_thing_once_in_a_while() -> None:
    """A collector may be away for days, and must not fill the log."""
    code = """
for _ in range(1000):
    logging.getLogger('opentelemetry.exporter.x').error('Failed to export %s', 'metrics')
logging.getLogger('opentelemetry.exporter.x').error('something else')
for _ in range(3):
    log.info('file.completed')
"""
    assert [line["event"] for line in said(code)] == ["opentelemetry.exporter.x"] * 2 + ["file.completed"] * 3


TOLD = """
told = threading.Event()
class Told(logging.Handler):
    def emit(self, record):
        if record.name.startswith('opentelemetry'): told.set()
logging.getLogger().addHandler(Told())  # called after the one that writes the line
telemetry.FILES_UPLOADED.add(1)
told.wait(120)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("away", [True, False], ids=["away", "without TLS"])
def test_a_collector_that_cannot_be_reached_is_told_in_json_too(stack: ExitStack, protocol: str, away: bool) -> None:
    """gRPC's core would write a failed handshake to stderr, past all logging."""
    plain = stack.enter_context(over_http()).endpoint
    endpoint = "http://127.0.0.1:9" if away else plain.replace("http:", "https:")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    env |= {"OTEL_METRIC_EXPORT_INTERVAL": "100", "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}"}
    text = run(TOLD, env)
    spotless(text)
    told = checked(text, "uploader")
    assert told
    assert {line["event"].partition(".")[0] for line in told} == {"opentelemetry"}

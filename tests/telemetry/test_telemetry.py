"""Telemetry as a real OTLP receiver gets it: values, spans, resources; and its cost when there is no receiver."""

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.trace.export import SpanExportResult

from tests.endpoint.faults import Hold, Refuse, Reset
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support import programs
from tests.support.programs import Server, free_port, wait_for
from tests.support.receiver import Receiver, attributes, over_grpc, over_http
from tests.support.telemetry import run
from uploader.blob.measured import ASK
from uploader.telemetry import collector, names, otlp
from uploader.version import VERSION

BLOCK = 256 * 1024  # bytes: such blocks are not divided, however slow the line is
LARGE = 5 * BLOCK + 77
SMALL = [number * 1001 for number in range(1, 21)]
ALWAYS = {"OTEL_METRIC_EXPORT_INTERVAL": "300", "OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BLRP_SCHEDULE_DELAY": "200"}
ENDLESS = (
    "import threading\njoin = threading.Thread.join\nthreading.Thread.join = lambda one, timeout=None: join(one)\n"
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    (folder / "run-1").mkdir(parents=True)
    return folder


def make(folder: Path, sizes: list[int], prefix: str = "") -> dict[str, int]:
    """Write files of these sizes; return their sizes by name."""
    written = {f"{prefix}{number}.bin": size for number, size in enumerate(sizes)}
    for name, size in written.items():
        (folder / f".{name}").write_bytes(os.urandom(size))
        (folder / f".{name}").rename(folder / name)
    return written


def shard(stack: ExitStack, folder: Path, connection: str, env: dict[str, str], **settings: object) -> Server:
    """Start a shard with these OTEL_ variables."""
    server = programs.shard(folder, folder / "share", connection, 0, **settings)
    server.env = {key: value for key, value in server.env.items() if not key.startswith("OTEL_")} | env
    if env:
        server.env = ALWAYS | server.env
    stack.callback(server.kill)
    server.up()
    return server


def ask(server: Server, call: str, **fields: object) -> Any:
    with httpx.Client(trust_env=False, timeout=40) as client:
        url = f"{server.url}/v1/watch/{call}"
        reply = client.post(url, json=fields) if fields else client.get(url)
    assert reply.is_success, reply.text
    return reply.json()


def to(endpoint: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}


def failed_to_export(server: Server, signal: str) -> bool:
    return f"Failed to export {signal} batch" in server.log()


def lines(server: Server) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in server.log().splitlines()]


# --- values


@pytest.mark.parametrize(("protocol", "receiver"), [("http/protobuf", over_http), ("grpc", over_grpc)])
def test_a_known_load_is_counted_exactly(
    tmp_path: Path,
    share: Path,
    stack: ExitStack,
    protocol: str,
    receiver: Callable[[], AbstractContextManager[Receiver]],
) -> None:
    """21 files, one of them in six blocks: counters, histograms, gauges, spans and log records all agree."""
    got, began = stack.enter_context(receiver()), time.monotonic()
    sizes = make(share / "run-1", SMALL) | make(share / "run-1", [LARGE], "large-")
    total = sum(sizes.values())
    connection = stack.enter_context(programs.azurite(tmp_path))
    env = to(got.endpoint) | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    # Two connections: a worker has many files in turn, and what it keeps of one would show in the next.
    server = shard(stack, tmp_path, connection, env, block_size=BLOCK, memory=8 * BLOCK, connections=2)
    ask(server, "start", session="run-1")
    wait_for(lambda: got.value(names.SESSIONS_ACTIVE) == 1, "the session to be counted")
    wait_for(lambda: len(got.spans()) == len(sizes), "the spans")
    wait_for(lambda: got.value(names.FILES_DELETED) == len(sizes), "all files to be deleted")
    wait_for(lambda: got.value(names.FILES_UPLOADING) == 0, "the workers to be free")
    wait_for(lambda: [one.count for _, one in got.points(names.DISCOVERY_DELAY)] == [len(sizes)], "discovery to say so")
    another_push(got)
    wall = time.monotonic() - began

    assert got.value(names.FILES_UPLOADED) == len(sizes)
    assert got.value(names.CONTENT_UPLOADED) == total
    assert got.value(names.CONTENT_SENT) == total
    assert got.value(names.BLOCKS_SENT) == 6
    assert got.value(names.BLOCKS_SKIPPED) == 0
    assert got.value(names.FILES_FAILED) == 0
    check_store(got)
    for gauge in (names.FILES_WAITING, names.FILES_UPLOADING, names.FILES_FAILING):
        assert got.value(gauge) == 0, gauge
    ages = [0.0]

    def renewed() -> bool:
        ages.append(got.value(names.SHARE_AGE))
        return 0 < ages[-1] < ages[-2]

    wait_for(renewed, "an age of the share that falls again")

    for name in (names.UPLOAD_DURATION, names.DISCOVERY_DELAY):
        [(_, point)] = got.points(name)
        assert point.count == sum(point.bucket_counts) == len(sizes), name
        assert 0 < point.sum <= wall * len(sizes), name
    least, most = upload_durations(got)
    assert 0.99 * least <= got.points(names.UPLOAD_DURATION)[0][1].sum <= 1.01 * most, "two clocks are not one"
    [(_, scans)] = got.points(names.SCAN_DURATION)
    assert scans.count >= 2
    assert 0 < scans.sum <= time.monotonic() - began
    assert "exemplars" not in str(got.requests), "they cost more than the measurement"
    check_spans(got, sizes)
    check_logs(got, server, sizes)
    assert not [found for found in got.metrics() if not found.startswith("nfs_watch.")]
    check_ends(got, server, share)


def check_store(got: Receiver) -> None:
    """Check that each request to the store is measured, and only a refusal counted as one."""
    calls = {about[names.OPERATION]: point.count for about, point in got.points(names.STORE_DURATION)}
    # One answer is a refusal of a kind: nobody knows beforehand that the container is not there.
    assert calls == {ASK: 4, "put_blob": len(SMALL), "put_block": 6, "put_block_list": 1, "get_block_list": 1}
    refusals = [about for about, _ in got.points(names.STORE_REFUSALS)]
    assert refusals == [{names.OPERATION: ASK, names.STATUS: "404", names.CODE: "ContainerNotFound"}]


def check_ends(got: Receiver, server: Server, share: Path) -> None:
    """Check that sessions that end are counted, with what they leave behind."""
    assert (got.value(names.SESSIONS_ENDED), got.value(names.FILES_LEFT_BEHIND)) == (0, 0)
    ask(server, "stop", session="run-1", drain=True)
    wait_for(lambda: got.value(names.SESSIONS_ACTIVE) == 0, "the session to be gone")
    wait_for(lambda: ended(got) == {"true": 1, "false": 0}, "the session to have ended")
    another_push(got)
    assert got.value(names.FILES_LEFT_BEHIND) == 0
    (share / "run-2").mkdir()
    (share / "run-2/link.bin").symlink_to("nowhere")
    ask(server, "start", session="run-2")
    wait_for(lambda: got.value(names.FILES_FAILING) == 1, "the link to be shown")
    ask(server, "stop", session="run-2", drain=False)
    wait_for(lambda: ended(got) == {"true": 1, "false": 1}, "the other session to have ended")
    wait_for(lambda: got.value(names.FILES_LEFT_BEHIND) == 1, "what it leaves")


def ended(got: Receiver) -> dict[Any, int]:
    return {about[names.DRAINED]: point.as_int for about, point in got.points(names.SESSIONS_ENDED)}


def another_push(got: Receiver) -> None:
    """Wait for metrics that were collected after this call; the push in progress may hold older ones."""
    known = len(got.of(ExportMetricsServiceRequest))
    wait_for(lambda: len(got.of(ExportMetricsServiceRequest)) >= known + 2, "another push")


def upload_durations(got: Receiver) -> tuple[float, float]:
    """Return the sum of seconds from claimed to completed, and the sum of the whole spans' seconds."""
    inner, whole = 0, 0
    for span in got.spans():
        inner += span.events[-1].time_unix_nano - span.events[0].time_unix_nano
        whole += span.end_time_unix_nano - span.start_time_unix_nano
    return inner / 1e9, whole / 1e9


def check_spans(got: Receiver, sizes: dict[str, int]) -> None:
    """Check that each file has one span, with its phases in their order."""
    found: dict[Any, Any] = {}
    for span in got.spans():
        about = attributes(span.attributes)
        assert span.name == names.FILE_SPAN
        assert not span.parent_span_id
        assert about[names.SESSION] == "run-1"
        assert about[names.ATTEMPT] == 1
        assert found.setdefault(about[names.FILE_PATH], about[names.FILE_SIZE]) == about[names.FILE_SIZE]
        phases = [names.CLAIMED, names.STORED, names.COMMITTED, names.COMPLETED]
        if about[names.FILE_SIZE] <= BLOCK:
            phases.remove(names.STORED)  # a small file's content is stored by its commit
        else:
            assert attributes(span.events[1].attributes) == {"blocks": 6, "skipped": 0}
        assert [event.name for event in span.events] == phases
        times = [span.start_time_unix_nano, *(event.time_unix_nano for event in span.events), span.end_time_unix_nano]
        assert times == sorted(times)
    assert found == sizes
    assert len({span.trace_id for span in got.spans()}) == len(sizes)


def check_logs(got: Receiver, server: Server, sizes: dict[str, int]) -> None:
    """Check that stdout and OTLP agree, and that a file's lines carry the ids of its span."""
    # The last batch comes some time after the last metrics.
    expected = {names.PROCESS_STARTED: 1, names.SESSION_STARTED: 1}
    expected |= {names.FILE_COMPLETED: len(sizes), names.FILE_DELETED: len(sizes)}
    wait_for(lambda: len([1 for record in got.logs() if record.event_name in expected]) >= 2 + 2 * len(sizes), "logs")
    spans = {attributes(span.attributes)[names.FILE_PATH]: span for span in got.spans()}
    records = [record for record in got.logs() if record.event_name == names.FILE_COMPLETED]
    assert sorted(attributes(record.attributes)["path"] for record in records) == sorted(sizes)
    for record in records:
        about = attributes(record.attributes)
        span = spans[about["path"]]
        assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
        assert about["bytes"] == sizes[about["path"]]
        assert (record.severity_text, record.severity_number) == ("INFO", SeverityNumber.SEVERITY_NUMBER_INFO)
    said = [line for line in lines(server) if line["event"] == names.FILE_COMPLETED]
    assert len(said) == len(sizes)
    for line in said:
        span = spans[line["path"]]
        assert (line["trace_id"], line["span_id"]) == (span.trace_id.hex(), span.span_id.hex())
    told = [record.event_name for record in got.logs()]
    assert {event: told.count(event) for event in expected} == expected


def test_the_resource_says_who_it_is_and_no_metric_names_a_session_or_file(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """Semantic-convention names; OTEL_RESOURCE_ATTRIBUTES outranks what the program finds by itself."""
    pod = {"POD_NAME": "nfs-watch-0", "POD_NAMESPACE": "nfs-watch", "NODE_NAME": "jetson", "POD_UID": "7a5c"}
    got = stack.enter_context(over_http())
    make(share / "run-1", SMALL[:3])
    (share / "run-1" / "link.bin").symlink_to("/etc/hostname")
    endpoint = stack.enter_context(Endpoint())
    env = to(got.endpoint) | pod | {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine,site=lab"}
    server = shard(stack, tmp_path, endpoint.connection_string, env)
    ask(server, "start", session="run-1")
    wait_for(lambda: got.value(names.FILES_UPLOADED) == 3 and got.spans() and got.logs(), "all signals")
    wait_for(lambda: got.value(names.FILES_FAILING) == 1, "the link to be counted")
    wait_for(lambda: got.points(names.FILES_FAILED), "its failure to be counted")
    [(kind, point)] = got.points(names.FILES_FAILED)
    assert kind == {"error.type": "NotEligible"}
    assert point.as_int >= 1
    resources = got.resources()
    assert len(resources) >= 3
    for resource in resources:
        assert resource == resources[0]
    expected = {
        "service.name": "nfs-watch-uploader",
        "service.namespace": "nfs-watch",
        "service.instance.id": "mine",
        "service.version": VERSION,
        "site": "lab",
        "k8s.pod.name": "nfs-watch-0",
        "k8s.pod.uid": "7a5c",
        "k8s.namespace.name": "nfs-watch",
        "k8s.node.name": "jetson",
        "telemetry.sdk.name": "opentelemetry",
    }
    assert expected.items() <= resources[0].items()
    kinds = {names.ERROR_TYPE, names.OUTCOME, names.DRAINED, names.OPERATION, names.STATUS, names.CODE}
    for name in got.metrics():
        for about, _ in got.points(name):
            assert about.keys() <= kinds, name
            assert not any("run-1" in str(value) or "link" in str(value) for value in about.values()), name


def test_the_gauges_show_what_waits_and_what_is_under_way(tmp_path: Path, share: Path, stack: ExitStack) -> None:
    """With two connections and a store that hangs, two files are uploading and the rest wait."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    make(share / "run-1", SMALL)
    server = shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint), connections=2)
    endpoint.faults.add(Hold(threading.Event()), Operation.PUT_BLOB, times=1000)
    ask(server, "start", session="run-1")
    gauges = names.FILES_WAITING, names.FILES_UPLOADING, names.FILES_FAILING
    wait_for(lambda: [got.value(gauge) for gauge in gauges] == [len(SMALL) - 2, 2, 0], "the rest to wait")
    wait_for(lambda: got.value(names.FILES_OLDEST) > 0, "the age of the oldest")
    assert got.value(names.STORE_REACHABLE) == 1
    assert got.value(names.SHARE_FREE) > 0


def test_the_router_says_who_it_is_too(tmp_path: Path, stack: ExitStack) -> None:
    """Its log records are labelled as the router's, with an instance of their own."""
    got = stack.enter_context(over_http())
    router = programs.router(tmp_path, "http://127.0.0.1:9/{ordinal}")
    router.env |= ALWAYS | to(got.endpoint)
    stack.callback(router.kill)
    router.start()
    wait_for(lambda: names.PROCESS_STARTED in [record.event_name for record in got.logs()], "its first words")
    assert {"service.name": "nfs-watch-router", "service.namespace": "nfs-watch"}.items() <= got.resources()[0].items()
    assert f"-{router.pid}" in got.resources()[0]["service.instance.id"]
    gauges = names.SHARDS_KNOWN, names.SHARDS_REACHABLE
    wait_for(lambda: [got.value(gauge) for gauge in gauges] == [1, 0], "the shard that does not answer to be told")


def test_a_failed_upload_is_counted_by_its_class_and_marks_its_span(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """The operator sees which kind of error, for which file, at which attempt, and no key."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    make(share / "run-1", SMALL[:2])
    endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), Operation.PUT_BLOB, times=1)
    server = shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint))
    ask(server, "start", session="run-1")
    wait_for(lambda: got.value(names.FILES_UPLOADED) == 2, "the second try")  # 5 s later
    wait_for(lambda: len(got.spans()) == 3, "the spans")
    [(kind, point)] = got.points(names.FILES_FAILED)
    assert (kind, point.as_int) == ({"error.type": "StoreRefused"}, 1)
    [failed] = [span for span in got.spans() if span.status.code == 2]
    assert attributes(failed.attributes)[names.ERROR_TYPE] == "StoreRefused"
    assert "AuthorizationPermissionMismatch" in failed.status.message
    assert programs.KEY[:20] not in str(got.requests)
    [line] = [line for line in lines(server) if line["event"] == names.FILE_FAILED]
    assert line["trace_id"] == failed.trace_id.hex()
    path = attributes(failed.attributes)[names.FILE_PATH]
    tries = [attributes(span.attributes) for span in got.spans()]
    assert sorted(one[names.ATTEMPT] for one in tries if one[names.FILE_PATH] == path) == [1, 2]


def test_what_the_store_does_not_carry_out_is_counted_at_each_try(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """A store that throttles is seen, although the retries hide it from the files; so are answers that never come."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    make(share / "run-1", [1000])
    endpoint.faults.add(Refuse(503, "ServerBusy"), Operation.PUT_BLOB, times=2)
    endpoint.faults.add(Refuse(429, "<b>not a code</b>"), Operation.PUT_BLOB, times=1)
    endpoint.faults.add(Reset(), Operation.PUT_BLOB, times=1)
    server = shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint))
    ask(server, "start", session="run-1")
    wait_for(lambda: got.value(names.FILES_UPLOADED) == 1, "the file")
    another_push(got)
    counted = {
        (about[names.STATUS], about[names.CODE]): point.as_int
        for about, point in got.points(names.STORE_REFUSALS)
        if about[names.OPERATION] == "put_blob"
    }
    assert counted == {("503", "ServerBusy"): 2, ("429", "other"): 1, ("0", ""): 1}
    durations = {about[names.OPERATION]: point.count for about, point in got.points(names.STORE_DURATION)}
    assert durations["put_blob"] == 4, "each answer, and no time for what was not answered"


def test_blocks_that_a_resumed_upload_skips_are_counted(tmp_path: Path, share: Path, stack: ExitStack) -> None:
    """Killed midway through 40 blocks: those skipped and those sent after the restart add up to 40."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    make(share / "run-1", [40 * BLOCK])
    gate = threading.Event()
    endpoint.faults.add(Hold(gate), Operation.PUT_BLOCK, skip=12, times=1000)
    settings = {"block_size": BLOCK, "memory": 4 * BLOCK, "connections": 2}
    first = shard(stack, tmp_path, endpoint.connection_string, {}, **settings)
    ask(first, "start", session="run-1")
    wait_for(lambda: sum(it.status == 201 for it in endpoint.log.of(Operation.PUT_BLOCK)) == 12, "twelve blocks")
    first.kill()
    gate.set()
    shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint), **settings)
    wait_for(lambda: got.value(names.CONTENT_UPLOADED) == 40 * BLOCK, "the file")
    another_push(got)
    sent, skipped = got.value(names.BLOCKS_SENT), got.value(names.BLOCKS_SKIPPED)
    assert sent + skipped == 40
    assert skipped >= 12
    assert got.value(names.CONTENT_SENT) == sent * BLOCK
    assert got.value(names.CONTENT_UPLOADED) == 40 * BLOCK


def test_the_delay_of_discovery_is_measured_by_the_files_change(tmp_path: Path, share: Path, stack: ExitStack) -> None:
    """A file written in place, without any event, has to settle first: that time is the delay."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    server = shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint), settle=2, scan_interval=0.1)
    ask(server, "start", session="run-1")
    # Long before the file: a delay counted from the first scan would be longer than the file's whole life.
    wait_for(lambda: [one for _, one in got.points(names.SCAN_DURATION) if one.count >= 30], "thirty scans")
    folder = share / ".outside" / "moved"  # comes with its folder: no event says that it is finished
    folder.mkdir(parents=True)
    (folder / "in-place.bin").write_bytes(b"12345")
    written = (folder / "in-place.bin").stat().st_mtime
    folder.rename(share / "run-1" / "moved")
    wait_for(lambda: got.value(names.FILES_UPLOADED) == 1, "the upload")
    wait_for(lambda: got.points(names.DISCOVERY_DELAY), "the delay")
    lay = time.time() - written  # what the file's times are from, tick for tick
    [(_, point)] = got.points(names.DISCOVERY_DELAY)
    assert point.count == 1
    assert 2 <= point.sum <= lay


# --- nobody listens


COUNT = "import threading, sys; print(len(threading.enumerate()), any('opentelemetry.sdk' in m for m in sys.modules))"


def test_without_an_endpoint_there_are_no_threads_and_no_sdk() -> None:
    """Telemetry that is switched off costs no memory; each signal costs one thread."""
    assert run(COUNT) == "1 False\n"
    assert run(COUNT, to("http://127.0.0.1:9") | {"OTEL_SDK_DISABLED": "true"}) == "1 False\n"
    assert run(COUNT, to("http://127.0.0.1:9")) == "4 True\n"
    one = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:9/v1/logs"}
    assert run(COUNT, one) == "2 True\n"


def test_a_wrong_protocol_is_named_and_nothing_else_happens() -> None:
    """The program runs on without telemetry, and one line names the variable."""
    wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    first, rest = run(COUNT, wrong).split("\n", 1)
    assert orjson.loads(first)["event"] == names.TELEMETRY_OFF
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/json" in orjson.loads(first)["error"]
    assert rest.startswith("1 ")


def test_an_instrument_that_nobody_reads_costs_next_to_nothing() -> None:
    """All telemetry calls for one small file make fewer than 60 function calls."""
    code = """
def one():
    with telemetry.file("run-1", "a/b.bin", 0):
        telemetry.phase(names.CLAIMED)
        telemetry.CONTENT_SENT.add(1)
        telemetry.phase(names.COMMITTED)
        telemetry.phase(names.COMPLETED)
        telemetry.uploaded(1, 0.0)
    telemetry.DISCOVERY_DELAY.record(1)
    telemetry.FILES_DELETED.add(1)
one()  # what is made once counts for nobody
calls = [0]
def called(frame, event, arg): calls[0] += event in {"call", "c_call"}
sys.setprofile(called)
one()
sys.setprofile(None)
print(calls[0])
"""
    assert int(run(code)) < 60


def test_a_collector_that_is_away_slows_nothing_and_is_not_talked_about(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """While pushes fail no spans are made and hardly a line is logged, for file after file.

    Then a collector appears there, gets all that was counted before, and gets spans and log records again.
    """
    files = 600
    endpoint = stack.enter_context(Endpoint())
    port, started = free_port(), time.monotonic()
    pushing = shard(stack, tmp_path, endpoint.connection_string, to(f"http://127.0.0.1:{port}"), retention=600)
    make(share / "run-1", [5000], "first-")
    ask(pushing, "start", session="run-1")
    wait_for(lambda: names.FILE_COMPLETED in pushing.log(), "the first file")
    # A push fails after some seconds; from then on the collector counts as away.
    for signal in ("spans", "logs"):
        wait_for(lambda signal=signal: failed_to_export(pushing, signal), f"a push of {signal} to fail")
    began = time.monotonic()
    make(share / "run-1", [5000] * files)
    wait_for(lambda: ask(pushing, "status")["sessions"][0]["files"]["completed"] > files, "all files", 180, 0.2)
    tries = 1 + (time.monotonic() - began) / collector.RETRY
    completed = [line for line in lines(pushing) if line["event"] == names.FILE_COMPLETED][1:]
    assert len(completed) == files
    assert sum("trace_id" in line for line in completed) <= 2 * tries, "spans are not even made, but for a try"
    about = sum(line["event"].startswith("opentelemetry") for line in lines(pushing))
    # The SDK tries a push again after 1, 2 and 4 s, each less a fifth at most: it fails after 5.6 s at the earliest.
    assert about <= 3 * (1 + (time.monotonic() - started) / 5.6)
    with over_http(port) as got:
        wait_for(lambda: got.value(names.FILES_UPLOADED) == 1 + files, "what was counted before")
        late = (f"{number}-" for number in itertools.count())

        def again() -> bool:
            make(share / "run-1", [5000], f"late-{next(late)}")
            spans = [attributes(span.attributes)[names.FILE_PATH] for span in got.spans()]
            records = [attributes(record.attributes).get("path", "") for record in got.logs()]
            return all(any(path.startswith("late-") for path in paths) for paths in (spans, records))

        wait_for(again, "spans and log records", interval=0.5)
    pushing.signal(15)
    assert pushing.wait() == 143


def test_a_collector_that_accepts_and_never_answers_slows_nothing_either(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """A listener that hangs: files go on, and the end of the process waits for no push.

    A push that it waited for would take an hour here: joins of threads have no limit of their own.
    """
    (tmp_path / "sitecustomize.py").write_text(ENDLESS)
    hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
    endpoint = stack.enter_context(Endpoint())
    url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
    env = to(url) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "PYTHONPATH": str(tmp_path)}
    server = shard(stack, tmp_path, endpoint.connection_string, env, retention=600)
    make(share / "run-1", [5000] * 200)
    ask(server, "start", session="run-1")
    wait_for(lambda: ask(server, "status")["sessions"][0]["files"]["completed"] == 200, "all files")
    assert sum(line["event"].startswith("opentelemetry") for line in lines(server)) <= 9
    server.signal(15)
    assert server.wait() == 143


@pytest.mark.parametrize(
    ("refused", "slow", "signals"),
    [("/v1/logs", 0.0, {"spans"}), ("/v1/traces", 0.0, {"logs"}), ("", 2.0, {"spans", "logs"})],
    ids=["no pipeline for logs", "no pipeline for traces", "slow"],
)
def test_a_collector_gets_all_of_what_it_takes(
    tmp_path: Path, share: Path, stack: ExitStack, refused: str, slow: float, signals: set[str]
) -> None:
    """Without a pipeline for logs it still gets every span, and so on: each signal is judged by its own pushes."""
    got, endpoint = stack.enter_context(over_http(refused=refused, slow=slow)), stack.enter_context(Endpoint())
    env = to(got.endpoint) | {"OTEL_METRICS_EXPORTER": "none"}
    server = shard(stack, tmp_path, endpoint.connection_string, env)
    make(share / "run-1", [100], "first-")
    ask(server, "start", session="run-1")
    for signal in {"spans", "logs"} - signals:
        wait_for(lambda signal=signal: failed_to_export(server, signal), f"{signal} to be refused")
    for number in range(5):
        make(share / "run-1", [100] * 10, f"{number}-")
        sent = 1 + 10 * (number + 1)
        wait_for(lambda sent=sent: server.log().count(f'"{names.FILE_COMPLETED}"') == sent, "this batch")
    if "spans" in signals:
        wait_for(lambda: len(got.spans()) == 51, "all spans")
    if "logs" in signals:
        wait_for(lambda: [it.event_name for it in got.logs()].count(names.FILE_COMPLETED) == 51, "all records")


def test_of_what_is_refused_one_is_taken_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every five seconds one push tries whether the collector takes the signal again."""

    class Exporter:
        def export(self, result: SpanExportResult) -> SpanExportResult:
            return result

    now = [1000.0]
    monkeypatch.setattr(collector, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert not collector.takes("traces"), "nothing was started here"
    exporter = collector.watched("refused", Exporter)()
    assert all(collector.takes("refused") for _ in range(100))
    exporter.export(SpanExportResult.FAILURE)
    taken = []
    for _ in range(150):
        now[0] += 0.1
        if collector.takes("refused"):
            taken.append(now[0])
    assert taken == pytest.approx([1005, 1010, 1015], abs=0.11)
    exporter.export(SpanExportResult.SUCCESS)
    assert all(collector.takes("refused") for _ in range(100))


def test_a_program_that_fails_ends_at_once_though_the_collector_hangs(stack: ExitStack) -> None:
    """A push that it waited for would take an hour here: joins of threads have no limit of their own."""
    hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
    env = to(f"http://127.0.0.1:{hanging.getsockname()[1]}") | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
    assert names.PROCESS_FAILED in run(ENDLESS + "telemetry.FILES_UPLOADED.add(1); raise ValueError", env, fails=True)


@pytest.mark.parametrize(
    ("env", "signals"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["metrics", "traces", "logs"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, []),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["traces"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, ["metrics", "logs"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, []),
    ],
)
def test_the_standard_variables_say_what_is_exported(env: dict[str, str], signals: list[str]) -> None:
    """An operator who knows OpenTelemetry's variables needs no others."""
    assert [signal for signal in otlp.SIGNALS if otlp.wanted(signal, env)] == signals


def test_counters_are_cumulative_so_that_a_lost_push_loses_nothing(
    tmp_path: Path, share: Path, stack: ExitStack
) -> None:
    """The next push has the whole sum."""
    got, endpoint = stack.enter_context(over_http()), stack.enter_context(Endpoint())
    make(share / "run-1", [10])
    server = shard(stack, tmp_path, endpoint.connection_string, to(got.endpoint))
    ask(server, "start", session="run-1")
    wait_for(lambda: got.value(names.FILES_UPLOADED) == 1, "the file")
    total = got.metrics()[names.FILES_UPLOADED].sum
    assert total.is_monotonic
    assert total.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

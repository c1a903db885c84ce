"""The instruments of both programs, and where logs go: JSON lines on stdout always, OTLP where an endpoint is set.

The instruments are the OpenTelemetry API's, which do nothing until `configure` has found an endpoint: a call then
costs a fraction of a microsecond. Attributes never hold the name of a session or file: those are in spans and logs.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Status, StatusCode

from uploader.telemetry import collector, json_log, names, otlp
from uploader.telemetry.text import shown

# Seconds: from a small file in the same rack to 10 GiB over a slow uplink.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

_meter = metrics.get_meter("nfs-watch")
_tracer = trace.get_tracer("nfs-watch")
_NO_SPAN = nullcontext()

FILES_UPLOADED = _meter.create_counter(
    names.FILES_UPLOADED, "{file}", "Files that the store has confirmed and that are marked .completed"
)
CONTENT_UPLOADED = _meter.create_counter(names.CONTENT_UPLOADED, "By", "Content of the files that are uploaded")
CONTENT_SENT = _meter.create_counter(
    names.CONTENT_SENT, "By", "Content that the store has confirmed, block by block; what is sent again counts again"
)
BLOCKS_SENT = _meter.create_counter(names.BLOCKS_SENT, "{block}", "Blocks of large files that the store has confirmed")
BLOCKS_SKIPPED = _meter.create_counter(
    names.BLOCKS_SKIPPED, "{block}", "Blocks that an upload resumed did not have to send again"
)
FILES_FAILED = _meter.create_counter(names.FILES_FAILED, "{file}", "Attempts that failed, by the error's class")
FILES_DELETED = _meter.create_counter(names.FILES_DELETED, "{file}", "Completed files that have been deleted")
FILES_REPLACED = _meter.create_counter(
    names.FILES_REPLACED, "{file}", "Files that took the place of other content, by what became of that"
)
UPLOAD_DURATION = _meter.create_histogram(
    names.UPLOAD_DURATION, "s", "From claim to .completed", explicit_bucket_boundaries_advisory=DURATIONS
)
DISCOVERY_DELAY = _meter.create_histogram(
    names.DISCOVERY_DELAY,
    "s",
    "From a file's last change, or the start of discovery, to its place in the queue, by the server's clock",
    explicit_bucket_boundaries_advisory=DURATIONS,
)
SCAN_DURATION = _meter.create_histogram(
    names.SCAN_DURATION,
    "s",
    "Work of one scan of a session's folder, without waiting for room in the queue",
    explicit_bucket_boundaries_advisory=DURATIONS,
)
STORE_DURATION = _meter.create_histogram(
    names.STORE_DURATION,
    "s",
    "From the first byte of a request to the store to the last of its answer, by operation; each try by itself",
    explicit_bucket_boundaries_advisory=DURATIONS,
)
STORE_REFUSALS = _meter.create_counter(
    names.STORE_REFUSALS, "{request}", "Requests that the store did not carry out, by operation, status and code"
)
SESSIONS_ENDED = _meter.create_counter(
    names.SESSIONS_ENDED, "{session}", "Sessions that have ended and have a result, by whether they were drained"
)
FILES_LEFT_BEHIND = _meter.create_counter(
    names.FILES_LEFT_BEHIND, "{file}", "Files on the share whose session has ended without sending them"
)
NO_ANSWER = 0  # the status of a request that got none
GAUGES = {
    names.FILES_WAITING: ("{file}", "Files known that are not in the store and not being uploaded"),
    names.FILES_UPLOADING: ("{file}", "Files that are being uploaded"),
    names.FILES_FAILING: (
        "{file}",
        "Files that failed and wait for the next try, or that cannot be proven to be in the store and are kept",
    ),
    names.SESSIONS_ACTIVE: ("{session}", "Sessions that take files or drain"),
    names.FILES_OLDEST: ("s", "Time for which the oldest file has been ready that no worker has taken"),
    names.SHARE_AGE: ("s", "Time since the share last answered"),
    names.SHARE_FREE: ("By", "Room on the share"),
    names.STORE_REACHABLE: ("{store}", "1 while the store answers, else 0: nothing is sent meanwhile"),
    names.CERTIFICATE_EXPIRES: ("s", "End of the certificate for Azure that was read at the start, since 1970"),
}
ROUTERS = {
    names.SHARDS_KNOWN: ("{shard}", "Shards that there should be"),
    names.SHARDS_REACHABLE: ("{shard}", "Shards that answered the router's last look"),
}


def configure(service: str) -> None:
    """Write log records to stdout, and start OTLP when an endpoint is set."""
    json_log.write(service)
    otlp.begin(f"nfs-watch-{service}")


def observe(read: Callable[[], Mapping[str, float]]) -> None:
    """Make the gauges show what `read` returns, by the gauge's name, whenever metrics are collected.

    The counters start at 0 here: a counter that appears with its first value has no rate.
    """
    for counter in (FILES_UPLOADED, CONTENT_UPLOADED, CONTENT_SENT, BLOCKS_SENT, BLOCKS_SKIPPED, FILES_DELETED):
        counter.add(0)
    FILES_LEFT_BEHIND.add(0)
    for drained in ("true", "false"):
        SESSIONS_ENDED.add(0, {names.DRAINED: drained})
    for outcome in ("snapshot", "replace"):
        FILES_REPLACED.add(0, {names.OUTCOME: outcome})
    gauges(GAUGES, read)


def gauges(which: Mapping[str, tuple[str, str]], read: Callable[[], Mapping[str, float]]) -> None:
    """Make these gauges show what `read` returns. `which`: unit and description by name."""
    for name, (unit, description) in which.items():

        def callback(_: CallbackOptions, name: str = name) -> Iterable[Observation]:
            values = read()
            return [Observation(values[name])] if name in values else []  # no certificate has no end

        _meter.create_observable_gauge(name, [callback], unit, description)


def file(session: str, path: str, attempt: int) -> AbstractContextManager[object]:
    """Return a context with one span for this attempt; phases are its events, and log lines carry its trace id.

    Without an endpoint, or while the collector is away, it costs 0.3 us.
    """
    if not collector.takes("traces"):
        return _NO_SPAN
    about: dict[str, str | int]
    about = {names.SESSION: session, names.FILE_PATH: shown(path), names.ATTEMPT: attempt + 1}
    span = _tracer.start_span(names.FILE_SPAN, attributes=about)
    return trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False)


def phase(name: str, **numbers: int) -> None:
    """Mark the end of a phase in the file's span."""
    trace.get_current_span().add_event(name, numbers)


def uploaded(size: int, began: float) -> None:
    """Count a file of `size` bytes that was claimed at `began` (monotonic seconds) and is completed."""
    FILES_UPLOADED.add(1)
    CONTENT_UPLOADED.add(size)
    UPLOAD_DURATION.record(time.monotonic() - began)
    trace.get_current_span().set_attribute(names.FILE_SIZE, size)


def replaced(*, kept: bool) -> None:
    """Count a file that took the place of other content. `kept`: in a snapshot."""
    FILES_REPLACED.add(1, {names.OUTCOME: "snapshot" if kept else "replace"})


def answered(operation: str, seconds: float) -> None:
    """Record a request that the store has answered."""
    STORE_DURATION.record(seconds, {names.OPERATION: operation})


def refused(operation: str, status: int, code: str) -> None:
    """Count a request that the store did not carry out. `status`: NO_ANSWER without an answer; `code`: the store's."""
    STORE_REFUSALS.add(1, {names.OPERATION: operation, names.STATUS: str(status), names.CODE: code})


def ended(*, drained: bool, left_behind: int) -> None:
    """Count a session that has ended, and the files that it leaves on the share."""
    SESSIONS_ENDED.add(1, {names.DRAINED: "true" if drained else "false"})
    FILES_LEFT_BEHIND.add(left_behind)


def failed(error: Exception) -> None:
    """Count a failed attempt, and mark the file's span where there is one."""
    kind = type(error).__name__
    FILES_FAILED.add(1, {names.ERROR_TYPE: kind})
    span = trace.get_current_span()
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, str(error)))

"""Log records as JSON lines: one object a line, also for records of libraries and for exceptions."""

import json
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson
from opentelemetry import trace

from uploader.telemetry import names

OURS = ("uploader", "router", "__main__")
SELDOM = 300.0  # seconds between two equal lines of a library
MOST = 1000  # lines of libraries that are remembered
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def ours(record: logging.LogRecord) -> bool:
    """Tell whether the record comes from this program, not from a library."""
    return record.name.partition(".")[0] in OURS


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object; what was passed as `extra` stands beside the event.

    A library's line has the library's logger as its event, and its words as `message`.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Never raises: a value that JSON does not have is written as text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.name,
            "service": self.service,
            **fields(record),
        }
        line["event" if ours(record) else "message"] = said(record)
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:  # a lone surrogate, or a number beyond 64 bits: valid in Python only
            return json.dumps(line, default=repr, skipkeys=True)


def said(record: logging.LogRecord) -> str:
    """Return the record's text; the format string itself when its arguments do not fit."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 a library's mistake in its own format string
        return str(record.msg)


class Seldom(logging.Filter):
    """Lets equal lines of a library pass once in SELDOM seconds: a collector may be away for days, a client mad.

    OpenTelemetry's are equal when they are of one place in its code: they say how often they have failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, object, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is to be written."""
        if ours(record):
            return True
        now = time.monotonic()
        theirs = record.name.startswith(("opentelemetry", "grpc"))
        raised = f"{record.exc_info[1]!r}"[:200] if record.exc_info and not theirs else ""
        kind = record.name, record.lineno if theirs else said(record)[:200], raised
        if now < self._next.get(kind, 0.0):
            return False
        if len(self._next) >= MOST:
            self._next = {one: due for one, due in self._next.items() if due > now}
        if len(self._next) >= MOST:
            return False
        self._next[kind] = now + SELDOM
        return True


def write(service: str) -> None:
    """Send every log record, warning and unhandled exception to stdout as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(service))
    handler.addFilter(Seldom())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("azure", "httpx", "uvicorn.access", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # The SDK's "queue full", once for each record that is dropped, would cost more than the record.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _, error, at: _log(names.PROCESS_FAILED, error, at, level=logging.CRITICAL)
    sys.unraisablehook = lambda what: _log(names.ERROR_IGNORED, what.exc_value, what.exc_traceback)
    threading.excepthook = lambda what: _log(
        names.THREAD_FAILED, what.exc_value, what.exc_traceback, in_thread=what.thread and what.thread.name
    )


def _log(
    event: str,
    error: BaseException | None,
    at: TracebackType | None,
    level: int = logging.ERROR,
    **extra: Any,  # noqa: ANN401 any JSON
) -> None:
    what = (type(error), error, at) if error else None
    logging.getLogger(__name__).log(level, event, exc_info=what, extra=extra)

"""Whether the OpenTelemetry collector takes a signal; while it does not, nothing is created that would be dropped."""

import time
from typing import Any

RETRY = 5.0  # seconds from a push that failed to the next try, and between two tries
_next: dict[str, float] = dict.fromkeys(("traces", "logs"), float("inf"))  # when to try, monotonic seconds


def takes(signal: str) -> bool:
    """Tell whether this signal gets through: not before `watched` was called for it, nor after a push that failed.

    Then one span or log record every RETRY seconds is let through: its push shows whether the collector is back.
    Signals are judged one by one: a collector may have a pipeline for spans and none for logs.
    """
    again = _next.get(signal)
    if again is None:
        return True
    now = time.monotonic()
    if now < again:
        return False
    _next[signal] = now + RETRY
    return True


def watched(signal: str, exporter: type[Any]) -> type[Any]:
    """Return a subclass of the exporter that records here whether its last push succeeded."""
    _next.pop(signal, None)

    class Watched(exporter):  # type: ignore[misc]
        def export(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 as the SDK's three exporters
            result = super().export(*args, **kwargs)
            if result.name == "SUCCESS":
                _next.pop(signal, None)
            else:
                _next[signal] = time.monotonic() + RETRY
            return result

    return Watched

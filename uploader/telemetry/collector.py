"""Is the collector there? While it is away, what would be dropped is better not made at all."""

import time
from typing import Any

RETRY = 5.0  # seconds from a push that failed to the next try, and between two tries
_next: dict[str, float] = dict.fromkeys(("traces", "logs"), float("inf"))  # of what does not get through


def takes(signal: str) -> bool:
    """Tell whether this signal gets through: none does before it is watched, nor after a push that failed.

    But now and then one is taken, and its push tells whether the collector is back. Each signal speaks for itself:
    a collector may have a pipeline for spans and none for logs.
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
    """Return the exporter's class with the end of each push noted here."""
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

"""Is the collector there? While it is away, what would be dropped is better not made at all."""

import time
from typing import Any


class Collector:
    """What is known of the collector, for each signal: it may take metrics and have no pipeline for logs.

    A signal that was refused is tried again as soon as any other gets through; metrics are pushed always.
    """

    patience = 1.0  # seconds that a push may take before the collector counts as away

    def __init__(self) -> None:
        self.traces = False  # spans are wanted at all
        self._failed: set[str] = set()
        self._good: set[str] = set()
        self._pushes: dict[str, float] = {}

    def takes(self, signal: str) -> bool:
        """Tell whether this signal gets through: its last push did, and none under way takes long.

        Of one that was never pushed the others tell.
        """
        if not self._failed and not self._pushes:
            return True
        now = time.monotonic()
        late = {one for one, began in tuple(self._pushes.items()) if now - began > self.patience}
        troubled = self._failed | late
        good = self._good - troubled
        return signal in good or (signal not in troubled and (bool(good) or not troubled))

    def watched(self, signal: str, exporter: type[Any]) -> type[Any]:
        """Return the exporter's class with its pushes told to this object."""
        here = self

        class Watched(exporter):  # type: ignore[misc]
            def export(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 as the SDK's three exporters
                here._pushes[signal] = time.monotonic()
                try:
                    result = super().export(*args, **kwargs)
                finally:
                    del here._pushes[signal]
                if result.name == "SUCCESS":
                    here._failed.clear()
                    here._good.add(signal)
                else:
                    here._failed.add(signal)
                    here._good.discard(signal)
                return result

        return Watched


COLLECTOR = Collector()

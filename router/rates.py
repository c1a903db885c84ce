"""The last 15 minutes of each session's rate, for pages that are opened later.

Memory: KEPT numbers for each of MOST sessions: at most 0.7 MB.
"""

import time
from array import array
from collections.abc import Iterable
from typing import Any

STEP = 5.0  # seconds between two rates
KEPT = 180  # rates of one session: 15 minutes
MOST = 1000  # sessions


class Rates:
    """Rates in bytes per second by session and shard; a session that is no longer told is kept until all are 0."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, int], array[float]] = {}
        self._at = time.monotonic()
        self.shards: tuple[int, int] | None = None  # known and reachable, at the last look

    def note(self, sessions: Iterable[dict[str, Any]]) -> None:
        """Note the sessions of one status. One that is away, or gone, has the rate 0."""
        now = {
            (str(one["session"]), int(one.get("shard") or 0)): float(one.get("rate_bytes_per_s") or 0)
            for one in sessions
            if not one.get("as_of")
        }
        self._at = time.monotonic()
        for key in now:
            if key not in self._rates and len(self._rates) < MOST:
                self._rates[key] = array("f")
        for key, rates in list(self._rates.items()):
            rates.append(now.get(key, 0.0))
            del rates[:-KEPT]
            if key not in now and not any(rates):
                del self._rates[key]

    def told(self) -> dict[str, Any]:
        """Return the answer: `age_s`: of the last rate; `step_s`: from one to the next."""
        return {
            "step_s": STEP,
            "age_s": round(time.monotonic() - self._at, 1),
            "sessions": [
                {"session": session, "shard": shard, "rates": [round(rate) for rate in rates]}
                for (session, shard), rates in self._rates.items()
            ],
        }

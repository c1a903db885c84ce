"""The files of one session that could not be sent, and when each is tried again (I7).

Memory, measured: MAX_FAILURES times 260 bytes with a path of 30 characters, 26 MB in all, when equal texts are shared.
At worst every file has a text of its own, of MAX_TEXT characters: another 300 bytes each, 56 MB in all.
"""

import random
import time
from dataclasses import dataclass
from math import inf

from uploader.backlog.remembered import Remembered
from uploader.telemetry.text import shown

MAX_FAILURES = 100_000
MAX_TEXT = 250  # characters
MAX_SHARED = 1000  # texts that are kept for sharing
FIRST_BACKOFF, LAST_BACKOFF = 5.0, 300.0  # seconds


@dataclass(slots=True)
class Failure:
    """A file that could not be sent. `due`: next try, monotonic seconds; `when`: the last one, seconds since the epoch.

    `seen`: number of the last scan to see it.
    """

    error: str
    attempts: int
    due: float
    size: int = 0
    eligible: bool = True
    seen: int = 0
    when: float = 0.0


class Failures(Remembered[Failure]):
    """The failures of one session. Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        super().__init__()
        self.eligible = 0  # remembered files that a drain waits for
        self._shared: dict[str, str] = {}

    def add(self, path: str, text: str, size: int, scan: int, *, eligible: bool, final: bool = False) -> Failure | None:
        """Remember a failed attempt: the next one follows after 5 s, doubling to 5 min, give or take a fifth.

        `final`: none follows. None when the file is new and MAX_FAILURES are remembered already.
        """
        before = self.get(path)
        if before is None and len(self) >= MAX_FAILURES:
            return None
        attempts = before.attempts + 1 if before else 1
        wait = min(FIRST_BACKOFF * 2 ** min(attempts - 1, 10), LAST_BACKOFF) * random.uniform(0.8, 1.2)  # noqa: S311
        due = inf if final else time.monotonic() + wait
        failure = Failure(self._share(text), attempts, due, size, eligible, when=time.time())
        self.put(path, failure, scan)
        self.eligible += eligible
        return failure

    def retry(self, path: str | None) -> int:
        """Make every file, or one of them, due now, whether or not it would have been tried again; return how many."""
        some = [failure for name, failure in self if path is None or shown(name) == path]
        for failure in some:
            failure.due = 0.0
        return len(some)

    def drop(self, path: str) -> Failure | None:
        """Forget a file; return what was remembered of it."""
        if failure := super().drop(path):
            self.eligible -= failure.eligible
        return failure

    def _share(self, text: str) -> str:
        if len(self._shared) >= MAX_SHARED:
            self._shared.clear()
        text = text[:MAX_TEXT]
        return self._shared.setdefault(text, text)

"""The files of one session that could not be sent, and when each is tried again (I7).

Memory, measured: MAX_FAILURES times 260 bytes with a path of 30 characters; texts are shared where they are equal. That
is 26 MB. At worst, where each has a text of its own, another 300 bytes each for MAX_TEXT characters: 56 MB.
"""

import random
import time
from dataclasses import dataclass

from uploader.backlog.remembered import Remembered

MAX_FAILURES = 100_000
MAX_TEXT = 250  # characters
MAX_SHARED = 1000  # texts that are remembered to be shared
FIRST_BACKOFF, LAST_BACKOFF = 5.0, 300.0  # seconds


@dataclass(slots=True)
class Failure:
    """A file that could not be sent. `due`: not before, monotonic seconds; `seen`: by which scan last."""

    error: str
    attempts: int
    due: float
    size: int = 0
    eligible: bool = True
    seen: int = 0


class Failures(Remembered[Failure]):
    """All of them."""

    def __init__(self) -> None:
        super().__init__()
        self.eligible = 0  # remembered files that a drain waits for
        self._shared: dict[str, str] = {}

    def add(self, path: str, text: str, size: int, scan: int, *, eligible: bool) -> Failure | None:
        """Remember that a file has failed, once more or for the first time: 5 s doubling to 5 min, with jitter.

        None when too many are remembered already.
        """
        before = self.get(path)
        if before is None and len(self) >= MAX_FAILURES:
            return None
        attempts = before.attempts + 1 if before else 1
        wait = min(FIRST_BACKOFF * 2 ** min(attempts - 1, 10), LAST_BACKOFF) * random.uniform(0.8, 1.2)  # noqa: S311
        failure = Failure(self._share(text), attempts, time.monotonic() + wait, size, eligible)
        self.put(path, failure, scan)
        self.eligible += eligible
        return failure

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

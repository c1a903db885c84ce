"""The files of one session that could not be sent, and when each is tried again (I7).

Memory, measured: MAX_FAILURES times 260 bytes with a path of 30 characters, 26 MB in all, when equal texts are shared.
At worst every file has a text of its own, of MAX_TEXT characters: another 300 bytes each, 56 MB in all.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_FAILURES = 100_000
MAX_TEXT = 250  # characters
MAX_SHARED = 1000  # texts that are kept for sharing
FIRST_BACKOFF, LAST_BACKOFF = 5.0, 300.0  # seconds


@dataclass(slots=True)
class Failure:
    """A file that could not be sent. `due`: next try, monotonic seconds; `seen`: number of the last scan to see it."""

    error: str
    attempts: int
    due: float
    size: int = 0
    eligible: bool = True
    seen: int = 0


class Failures:
    """Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        self.eligible = 0  # remembered files that a drain waits for
        self.bytes = 0  # of all remembered files
        self._known: dict[str, Failure] = {}
        self._shared: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[str, Failure]]:
        return iter(self._known.items())

    def get(self, path: str) -> Failure | None:
        """Return what is remembered of a file."""
        return self._known.get(path)

    def add(self, path: str, text: str, size: int, scan: int, *, eligible: bool) -> Failure | None:
        """Remember a failed attempt: the next one follows after 5 s, doubling to 5 min, give or take a fifth.

        None when the file is new and MAX_FAILURES are remembered already.
        """
        before = self._known.get(path)
        if before is None and len(self._known) >= MAX_FAILURES:
            return None
        attempts = before.attempts + 1 if before else 1
        wait = min(FIRST_BACKOFF * 2 ** min(attempts - 1, 10), LAST_BACKOFF) * random.uniform(0.8, 1.2)  # noqa: S311
        self.drop(path)
        failure = Failure(self._share(text), attempts, time.monotonic() + wait, size, eligible, scan)
        self._known[path] = failure
        self.eligible += eligible
        self.bytes += size
        return failure

    def drop(self, path: str) -> None:
        """Forget a file."""
        if failure := self._known.pop(path, None):
            self.eligible -= failure.eligible
            self.bytes -= failure.size

    def drop_unseen(self, scan: int, held: Callable[[str], bool]) -> None:
        """Forget the files that this scan did not see, unless they are `held`."""
        for path in [path for path, one in self._known.items() if one.seen < scan and not held(path)]:
            self.drop(path)

    def _share(self, text: str) -> str:
        if len(self._shared) >= MAX_SHARED:
            self._shared.clear()
        text = text[:MAX_TEXT]
        return self._shared.setdefault(text, text)

"""What is remembered of the files of one session. All of it is a cache of the share: losing it costs a scan.

Memory: at most `limit` small and `limit` large files wait, about 1 kB each, and the settling and failed ones that are
remembered, about 500 bytes each.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from uploader.backlog.throughput import Meter
from uploader.errors import FileError, NotEligible
from uploader.share.fingerprint import Look
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown

log = logging.getLogger(__name__)
MAX_FAILURES = 10_000
FIRST_BACKOFF, LAST_BACKOFF = 5.0, 300.0  # seconds


@dataclass(slots=True)
class Item:
    """One file that is ready, and how far it is. `found`: what it was then; `attempts`: those that failed."""

    files: "Files"
    path: str
    found: Look
    attempts: int
    size: int
    uploaded: int = 0
    swept: bool = False  # no file at all: the sweeper has the path for itself

    def sent(self, size: int) -> None:
        """Count bytes that the store has confirmed; less than 0: bytes that it has lost."""
        self.uploaded += size
        self.files.meter.add(max(size, 0))


@dataclass(slots=True)
class Settling:
    """A file that was looked at and may still be written. `due`: when to look again, monotonic seconds."""

    look: Look
    since: float
    due: float
    given_back: bool = False
    seen: int = 0


@dataclass(slots=True)
class Failure:
    """A file that could not be sent. `due`: not before, monotonic seconds."""

    error: str
    attempts: int
    due: float
    size: int = 0
    eligible: bool = True
    seen: int = 0


class Files:
    """The files of one session, as far as they are remembered."""

    def __init__(self, session: str, limit: int, *, fresh: bool = False) -> None:
        """`fresh`: there was no record of this session, so that no earlier run can have given a claim back."""
        self.session = session
        self.fresh = fresh
        self.limit = limit
        self.small: deque[Item] = deque()
        self.large: deque[Item] = deque()
        self.known: dict[str, Item] = {}
        self.busy: dict[str, Item] = {}
        self.reserved = 0  # of `known`: 1 while the sweeper has a path for itself
        self.settling: dict[str, Settling] = {}
        self.failures: dict[str, Failure] = {}
        self.kept: dict[str, str] = {}  # `.completed` files that nobody can prove, with the reason
        self.beyond = 0  # files that a scan counted while the queue was full
        self.passed_over = False  # by the last scan: a path that the sweeper had, where something new may lie
        self.completed = 0
        self.completed_bytes = 0
        self.meter = Meter()
        self.cancelled = False
        self.last_error: str | None = None
        self.scans = 0
        self.finished = 0  # files that workers are done with, whatever became of them

    def skip(self, path: str, now: float) -> bool:
        """Tell whether a scan has nothing to do for this path; what a scan sees is remembered as still there."""
        failure, settling = self.failures.get(path), self.settling.get(path)
        for remembered in (failure, settling):
            if remembered:
                remembered.seen = self.scans
        if known := self.known.get(path):
            self.passed_over |= known.swept
            return True
        return any(one is not None and one.due > now for one in (failure, settling))

    def fail(self, path: str, error: Exception, size: int = 0) -> bool:
        """Remember and log a failure, and when to try again: 5 s doubling to 5 min, with jitter (I7).

        False when too many are remembered already: then the next scan meets this file again.
        """
        before = self.failures.get(path)
        attempts = before.attempts + 1 if before else 1
        wait = min(FIRST_BACKOFF * 2 ** min(attempts - 1, 10), LAST_BACKOFF) * random.uniform(0.8, 1.2)  # noqa: S311
        text = str(error) if isinstance(error, FileError) else f"{type(error).__name__}: {error}"
        due = time.monotonic() + wait
        failure = Failure(text, attempts, due, size, not isinstance(error, NotEligible), self.scans)
        instruments.failed(error)
        self.last_error = text
        if not before and len(self.failures) >= MAX_FAILURES:
            return False
        self.failures[path] = failure
        extra = {"session": self.session, "path": shown(path), "attempt": attempts, "error": text}
        log.warning(names.FILE_FAILED, extra=extra)
        return True

    def given_back(self, path: str, look: Look, settle: float) -> None:
        """Remember that it was we who renamed this file: that is no sign of its being finished."""
        now = time.monotonic()
        self.settling[path] = Settling(look, now, now + settle, given_back=True, seen=self.scans)

    def forget_unseen(self) -> None:
        """After a whole scan: forget what it did not see."""
        remembered: tuple[dict[str, Any], ...] = (self.failures, self.settling)
        for seen in remembered:
            for path in [path for path, one in list(seen.items()) if one.seen < self.scans]:
                if path not in self.known:
                    seen.pop(path, None)

    def succeeded(self, item: Item) -> None:
        """Count a file that is in the store and marked."""
        self.failures.pop(item.path, None)
        self.completed += 1
        self.completed_bytes += item.size

    @contextmanager
    def alone(self, path: str) -> Iterator[bool]:
        """Keep workers off a path meanwhile; give False when one has it. dict.setdefault is one step for all threads.

        For the sweeper's thread only. What it looks at is in the store, or kept: it is not pending.
        """
        mine = Item(self, path, Look(0, 0, 0, 0), 0, 0, swept=True)
        got = self.known.setdefault(path, mine) is mine
        self.reserved = int(got)
        try:
            yield got
        finally:
            self.reserved = 0
            if got:
                self.known.pop(path, None)

    def waiting(self) -> int:
        """Return how many files are known that are neither in the store nor under way; failed ones aside."""
        return max(0, len(self.known) - self.reserved - len(self.busy)) + len(self.settling) + self.beyond

    def pending(self) -> int:
        """Return how many eligible files are known that are not in the store yet."""
        failed = sum(failure.eligible and path not in self.known for path, failure in list(self.failures.items()))
        return len(self.known) - self.reserved + len(self.settling) + self.beyond + failed + self.passed_over

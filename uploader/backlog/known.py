"""What is known of the files of one session, and what the counts of a status make of it."""

import time
from collections.abc import Iterator
from itertools import islice
from math import inf
from typing import Protocol

from uploader.backlog.failures import Failure, Failures
from uploader.backlog.settling import SettlingFiles
from uploader.backlog.snapshot import Snapshot
from uploader.session import at
from uploader.telemetry.text import shown
from uploader.web.openapi.models import Current, LastError
from uploader.web.openapi.results import FileState, FileStatus


class Ready(Protocol):
    """A file that is queued or busy. `size`, `uploaded`: bytes; `attempts`: failed ones; `since`: monotonic seconds."""

    size: int
    uploaded: int
    attempts: int
    since: float


class Known:
    """The files of one session by their state. Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        self.queued: dict[str, Ready] = {}
        self.busy: dict[str, Ready] = {}
        self.reserved: set[str] = set()
        self.settling = SettlingFiles()
        self.failures = Failures()
        self.kept: dict[str, tuple[str, float]] = {}  # why, and since when
        self.beyond = 0  # files that a scan counted while the queue was full
        self.passed_over = False  # the last scan left out a reserved path, where a new file may be
        self.completed = 0
        self.completed_bytes = 0
        self.replaced = 0  # of those completed: other content was under the blob's name
        self.earlier: dict[str, int | None] = {}  # bytes of `.completed` files of earlier runs; None: has a receipt
        self.errors: dict[str, tuple[str, float, str | None]] = {}  # by part of the session's work; since when, of what

    def held(self, path: str) -> bool:
        """Tell whether a path is queued, busy or reserved."""
        return path in self.queued or path in self.busy or path in self.reserved

    def count(self, size: int, times: int = 1) -> None:
        """Count a file of `size` bytes that is in the store and has become `.completed`; -1: no longer."""
        self.completed += times
        self.completed_bytes += times * size

    def drop_unseen(self, scan: int) -> None:
        """Forget the files that failed or settle and that this scan did not see, unless they are held."""
        self.failures.drop_unseen(scan, self.held)
        self.settling.drop_unseen(scan, self.held)

    def seen(self, path: str, scan: int) -> float:
        """Note that this scan saw a path; return when its file is due, monotonic seconds; 0 when nothing is."""
        due = 0.0
        for note in (self.failures.get(path), self.settling.get(path)):
            if note:
                note.seen = scan
                due = max(due, note.due)
        self.passed_over |= path in self.reserved
        return due

    def _waiting(self) -> int:
        """Count the files that are known and neither uploading nor failed: the only place that does."""
        return len(self.queued) + len(self.settling) + self.beyond

    def pending(self) -> int:
        """Count the eligible files that are not in the store yet."""
        again = sum(failure.eligible for failure in self._tried_again())
        return self._waiting() + len(self.busy) + self.failures.eligible - again + self.passed_over

    def _tried_again(self) -> Iterator[Failure]:
        """Yield the failures of files that are queued or busy again: those are few, while failures may be many."""
        for path in (*self.queued, *self.busy) if len(self.failures) else ():
            if failure := self.failures.get(path):
                yield failure

    def snapshot(self, most: int, rate: float) -> Snapshot:
        """Return the counts, and at most `most` files: uploading, failed, open for writing, kept. `rate`: bytes/s."""
        uploaded = self.completed_bytes + sum(item.uploaded for item in self.busy.values())
        return Snapshot(
            waiting=self._waiting(),
            uploading=len(self.busy),
            completed=self.completed,
            failed=len(self.failures) + len(self.kept),
            replaced=self.replaced,
            bytes_uploaded=uploaded,
            bytes_total=max(uploaded, self._total()),
            rate=rate,
            current=list(islice(self._shown(), most)),
            last_error=self._last_error(),
        )

    def _last_error(self) -> LastError | None:
        """Return the last error that has not passed: of the session's work, else of a file that failed or is kept."""
        if self.errors:
            text, when, path = max(self.errors.values(), key=lambda one: one[1])
            return LastError(path and shown(path), at(when), text)
        if last := self.failures.last():
            return LastError(shown(last[0]), at(last[1].when), last[1].error)
        for path in reversed(self.kept):
            reason, when = self.kept[path]
            return LastError(shown(path), at(when), reason)
        return None

    def _total(self) -> int:
        known = [item.size for item in (*self.queued.values(), *self.busy.values())]
        total = self.completed_bytes + sum(known) + self.settling.bytes
        total += self.failures.bytes - sum(failure.size for failure in self._tried_again())
        if self.beyond and (met := self.completed + len(known)):
            total += self.beyond * (total // met)  # not looked at yet: assumed to be as large as the others
        return total

    def paths(self, state: FileState) -> list[str]:
        """Return the paths of the files in a state; those that are done are not remembered here."""
        if state is FileState.UPLOADING:
            return list(self.busy)
        if state is FileState.FAILED:
            return [path for path, _ in self.failures if path not in self.busy]
        if state is FileState.KEPT:
            return list(self.kept)
        if state is FileState.WAITING:
            new = [path for path in self.queued if not self.failures.get(path)]
            return new + [path for path, _ in self.settling if path not in self.queued and path not in self.busy]
        return []

    def describe(self, path: str) -> FileStatus | None:
        """Return what is remembered of one file, None when nothing is."""
        failure, settling = self.failures.get(path), self.settling.get(path)
        tries, error = (failure.attempts, failure.error) if failure else (0, None)
        if item := self.busy.get(path):
            size, sent, tries = item.size, item.uploaded, item.attempts + 1
            return FileStatus(shown(path), FileState.UPLOADING, size, sent, tries, error)
        if failure:
            return FileStatus(shown(path), FileState.FAILED, failure.size, 0, tries, error, _time(failure.due))
        if path in self.kept:
            return FileStatus(shown(path), FileState.KEPT, reason=self.kept[path][0])
        if queued := self.queued.get(path):
            return FileStatus(shown(path), FileState.WAITING, queued.size)
        if settling:
            reason, due = settling.reason or None, _time(settling.due)
            return FileStatus(shown(path), FileState.WAITING, settling.size, reason=reason, next_try=due)
        return None

    def _shown(self) -> Iterator[Current]:
        for path, item in self.busy.items():
            before = self.failures.get(path) if item.attempts else None
            yield Current(shown(path), item.size, item.uploaded, item.attempts + 1, before.error if before else None)
        for path, failure in self.failures:
            if path not in self.busy:
                due = _time(failure.due)
                yield Current(shown(path), failure.size, 0, failure.attempts, failure.error, FileState.FAILED, due)
        for path, settling in self.settling.with_reason():
            if path not in self.busy:
                yield Current(shown(path), settling.size, 0, 0, settling.reason, FileState.WAITING)
        for path, (reason, _) in self.kept.items():
            yield Current(shown(path), 0, 0, 0, reason, FileState.KEPT)


def _time(due: float) -> str | None:
    """Return a time of the monotonic clock as answers write it, in whole seconds; None: it never comes.

    The clocks do not move in step: with milliseconds two looks would differ, and each would be an event.
    """
    return None if due == inf else at(round(time.time() + max(0.0, due - time.monotonic())))

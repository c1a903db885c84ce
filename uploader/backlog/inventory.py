"""What is remembered of the files of one session: this is its one owner, with one lock.

All of it is a cache of the share: losing it costs a scan. A file is queued, busy, settling or failed; the sweeper's
paths are reserved. Lock order: a lane's (lane.py) before this one; with this one held no other lock is asked for.

Memory: the queued files (lane.py), MAX_KEPT times about 500 bytes, and what settling.py and failures.py say.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from uploader.backlog.failures import Failure, Failures
from uploader.backlog.settling import Settling, SettlingFiles
from uploader.backlog.snapshot import Snapshot
from uploader.backlog.throughput import Throughput
from uploader.errors import FileError, NotEligible
from uploader.share.fingerprint import Fingerprint
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown
from uploader.web.openapi.models import Current

log = logging.getLogger(__name__)
MAX_KEPT = 100_000
UNREMEMBERED = 100  # files a second that a scan offers on average while more fail than can be remembered


@dataclass(slots=True)
class Item:
    """One file that is ready, and how far it is. `found`: what it was then; `attempts`: those that failed."""

    files: "Inventory"
    path: str
    found: Fingerprint
    attempts: int
    size: int
    uploaded: int = 0

    def sent(self, size: int) -> None:
        """Count bytes that the store has confirmed; less than 0: bytes that it has lost."""
        self.files.count_sent(self, size)


class Inventory:
    """The files of one session, as far as they are remembered. For all threads."""

    def __init__(self, session: str, limit: int, *, fresh: bool = False) -> None:
        """`limit`: files that may wait in each queue.

        `fresh`: there was no record of this session, so that no earlier run can have given a claim back.
        """
        self.session = session
        self.limit = limit
        self.fresh = fresh
        self.meter = Throughput()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)  # told when the session ends, and when then nothing is busy
        self._cancelled = False
        self._queued: dict[str, Item] = {}
        self._busy: dict[str, Item] = {}
        self._reserved: set[str] = set()
        self._settling = SettlingFiles()
        self._failures = Failures()
        self._kept: dict[str, str] = {}
        self._beyond = 0  # files that a scan counted while the queue was full
        self._passed_over = False  # by the last scan: a reserved path, where something new may lie
        self._completed = 0
        self._completed_bytes = 0
        self._last_error: str | None = None
        self._scans = 0
        self._finished = 0  # files that workers are done with, whatever became of them
        self._pace = 0.0

    # A session that ends

    @property
    def cancelled(self) -> bool:
        """Whether the session has ended here: what waits is dropped, what is under way gives up."""
        return self._cancelled

    def cancel(self) -> None:
        """End the session here."""
        with self._lock:
            self._cancelled = True
            self._idle.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """After `cancel`, wait so many seconds until nothing is under way; False when something still is."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._busy, timeout)

    # The way of one file, from the queue to its end

    def admit(self, path: str, found: Fingerprint) -> Item | None:
        """Note that a file waits; None when it does already, is under way, or the sweeper has its path."""
        with self._lock:
            self._passed_over |= path in self._reserved
            if self._held(path):
                return None
            failure = self._failures.get(path)
            self._settling.drop(path)
            item = self._queued[path] = Item(self, path, found, failure.attempts if failure else 0, found.size)
            return item

    def begin(self, item: Item) -> None:
        """Note that a worker has taken a file."""
        with self._lock:
            self._busy[item.path] = self._queued.pop(item.path)

    def resize(self, item: Item, size: int) -> None:
        """Note the size in bytes of a file that is under way."""
        with self._lock:
            item.size = size

    def count_sent(self, item: Item, size: int) -> None:
        """Count bytes of a file that is under way; less than 0: bytes that the store has lost."""
        with self._lock:
            item.uploaded += size
        self.meter.add(max(size, 0))

    def count_done(self, item: Item) -> None:
        """Count a file that is in the store and marked."""
        with self._lock:
            self._failures.drop(item.path)
            self._completed += 1
            self._completed_bytes += item.size

    def done(self, item: Item) -> None:
        """Forget a file that was taken, whatever became of it."""
        with self._lock:
            self._busy.pop(item.path, None)
            self._finished += 1
            if self._cancelled and not self._busy:
                self._idle.notify_all()

    def drop(self, items: Iterable[Item]) -> None:
        """Forget files that no worker has taken."""
        with self._lock:
            for item in items:
                self._queued.pop(item.path, None)

    def count_earlier(self, size: int) -> None:
        """Count a file of so many bytes that was done before this run."""
        with self._lock:
            self._completed += 1
            self._completed_bytes += size

    # Files that failed, settle, or are kept

    def fail(self, path: str, error: Exception, size: int = 0) -> None:
        """Remember and log a failure, and when to try again.

        When MAX_FAILURES are remembered already, the next scan meets this file again: `pace` slows it down.
        """
        text = str(error) if isinstance(error, FileError) else f"{type(error).__name__}: {error}"
        with self._lock:
            eligible = not isinstance(error, NotEligible)
            failure = self._failures.add(path, text, size, self._scans, eligible=eligible)
            self._last_error = text
            if failure is None and path in self._busy:
                self._pace = max(self._pace, time.monotonic()) + 1 / UNREMEMBERED
        instruments.failed(error)
        if failure:
            extra = {"session": self.session, "path": shown(path), "attempt": failure.attempts, "error": text}
            log.warning(names.FILE_FAILED, extra=extra)

    def failure(self, path: str) -> Failure | None:
        """Return what is remembered of a file that failed."""
        with self._lock:
            return self._failures.get(path)

    def pace(self) -> float:
        """Wait while a scan brings back failing files, too many to remember, faster than the store shall see them.

        Returns the seconds. Only the scan waits, no worker: good files behind the failing ones come in their turn.
        """
        with self._lock:
            began = time.monotonic()
            if self._pace > began:
                self._idle.wait_for(lambda: self._cancelled, self._pace - began)
            return time.monotonic() - began

    def note_error(self, text: str) -> bool:
        """Show an error of the session as a whole; True when it is another one than before."""
        with self._lock:
            new, self._last_error = self._last_error != text, text
            return new

    def settle(self, path: str, settling: Settling) -> bool:
        """Remember a file that may still be written; False when too many are remembered already."""
        with self._lock:
            if self._settling.full() and not self._settling.get(path):
                return False
            self._settling.put(path, settling, self._scans)
            return True

    def given_back(self, path: str, look: Fingerprint, settle: float, *, reason: str = "") -> None:
        """Remember that it was we who renamed this file: that is no sign of its being finished. `settle`: seconds."""
        now = time.monotonic()
        settling = Settling(look, now, now + settle, given_back=True, reason=reason)
        with self._lock:
            self._settling.put(path, settling, self._scans)

    def settling(self, path: str) -> Settling | None:
        """Return what is remembered of a file that may still be written."""
        with self._lock:
            return self._settling.get(path)

    def keep(self, path: str, reason: str) -> bool:
        """Show a marked file that cannot be deleted; False when that is known, or too many are shown."""
        with self._lock:
            if self._kept.get(path) == reason or len(self._kept) >= MAX_KEPT:
                return False
            self._kept[path] = reason
            return True

    def release(self, path: str) -> None:
        """Show it no more."""
        with self._lock:
            self._kept.pop(path, None)

    def kept(self) -> dict[str, str]:
        """Return the marked files that cannot be deleted, with the reasons."""
        with self._lock:
            return dict(self._kept)

    # Scans and the sweeper

    def begin_scan(self) -> int:
        """Begin a whole scan; return what `drained` wants to know at its end."""
        with self._lock:
            self._scans += 1
            self._passed_over = False
            return self._finished

    def end_scan(self, beyond: int) -> None:
        """Forget what a whole scan did not see. `beyond`: files that it met and that found no room."""
        with self._lock:
            self._beyond = beyond
            self._failures.drop_unseen(self._scans, self._held)
            self._settling.drop_unseen(self._scans, self._held)

    def skip(self, path: str, now: float) -> bool:
        """Tell whether a scan has nothing to do for this path; what a scan sees is remembered as still there."""
        with self._lock:
            remembered = [one for one in (self._failures.get(path), self._settling.get(path)) if one]
            for one in remembered:
                one.seen = self._scans
            self._passed_over |= path in self._reserved
            return self._held(path) or any(one.due > now for one in remembered)

    def count_beyond(self, count: int) -> None:
        """Note how many more files than these wait on the share."""
        with self._lock:
            self._beyond = count

    def one_from_beyond(self, left: int) -> None:
        """Note that one of them is queued now; at least `left` are not."""
        with self._lock:
            self._beyond = max(left, self._beyond - 1)

    @contextmanager
    def reserve(self, path: str) -> Iterator[bool]:
        """Keep workers off a path meanwhile; give False when one has it, or it is reserved already.

        What the sweeper looks at is in the store, or kept: it is not pending.
        """
        with self._lock:
            if mine := not self._held(path):
                self._reserved.add(path)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._reserved.discard(path)

    def _held(self, path: str) -> bool:
        return path in self._queued or path in self._busy or path in self._reserved

    # What others ask

    def knows(self, path: str) -> bool:
        """Tell whether a file waits or is under way."""
        with self._lock:
            return path in self._queued or path in self._busy

    def remembers(self, path: str) -> bool:
        """Tell whether a file counts already: it waits, is under way, settles or has failed."""
        with self._lock:
            return self._held(path) or bool(self._settling.get(path) or self._failures.get(path))

    def uploading(self) -> int:
        """Return how many files are under way."""
        with self._lock:
            return len(self._busy)

    def _waiting(self) -> int:
        """Count what is known and neither under way nor failed; nothing else may."""
        return len(self._queued) + len(self._settling) + self._beyond

    def pending(self) -> int:
        """Return how many eligible files are known that are not in the store yet."""
        with self._lock:
            return self._pending()

    def _pending(self) -> int:
        again = sum(failure.eligible for failure in self._tried_again())
        return self._waiting() + len(self._busy) + self._failures.eligible - again + self._passed_over

    def _tried_again(self) -> Iterator[Failure]:
        """Give the failures of files that wait or are under way once more; these are few, the failures may be many."""
        for path in (*self._queued, *self._busy) if len(self._failures) else ():
            if failure := self._failures.get(path):
                yield failure

    def drained(self, before: int) -> bool:
        """Tell, at a scan's end, whether nothing is left to do: no worker was done with a file since its begin either.

        Behind the scan a new file may have come under the name of one that a worker had when the scan passed it.
        """
        with self._lock:
            return self._finished == before and not self._pending()

    def snapshot(self, most: int = 0) -> Snapshot:
        """Return the counts, and at most so many files: under way first, then failed, held by their writers, kept."""
        rate = self.meter.rate()
        with self._lock:
            uploaded = self._completed_bytes + sum(item.uploaded for item in self._busy.values())
            return Snapshot(
                waiting=self._waiting(),
                uploading=len(self._busy),
                completed=self._completed,
                failed=len(self._failures) + len(self._kept),
                bytes_uploaded=uploaded,
                bytes_total=max(uploaded, self._total()),
                rate=rate,
                current=list(islice(self._shown(), most)),
                last_error=self._last_error,
            )

    def _total(self) -> int:
        known = [item.size for item in (*self._queued.values(), *self._busy.values())]
        total = self._completed_bytes + sum(known) + self._settling.bytes
        total += self._failures.bytes - sum(failure.size for failure in self._tried_again())
        if self._beyond and (met := self._completed + len(known)):
            total += self._beyond * (total // met)  # those not looked at yet: taken for as large as the others
        return total

    def _shown(self) -> Iterator[Current]:
        for path, item in self._busy.items():
            before = self._failures.get(path) if item.attempts else None
            yield Current(shown(path), item.size, item.uploaded, item.attempts + 1, before.error if before else None)
        for path, failure in self._failures:
            if path not in self._busy:
                yield Current(shown(path), failure.size, 0, failure.attempts, failure.error)
        for path, settling in self._settling.with_reason():
            if path not in self._busy:
                yield Current(shown(path), settling.look.size, 0, 0, settling.reason)
        for path, reason in self._kept.items():
            yield Current(shown(path), 0, 0, 0, reason)

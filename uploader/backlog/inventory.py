"""The inventory: all that is remembered of the files of one session, under one lock.

All of it is a cache of the share: losing it costs a scan. A file is queued, busy, settling or failed; the sweeper's
paths are reserved. Lock order: a lane's lock (lane.py) before this one; with this one held, no other lock is taken.

Memory: the queued files (lane.py), twice MAX_KEPT times about 500 bytes, and what settling.py and failures.py say.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from uploader.backlog.failures import MAX_TEXT, Failure
from uploader.backlog.known import Known
from uploader.backlog.settling import Settling
from uploader.backlog.snapshot import Snapshot
from uploader.backlog.throughput import Throughput
from uploader.errors import FileError, NameRefused, NotEligible
from uploader.share.fingerprint import Fingerprint
from uploader.telemetry import instruments, names
from uploader.telemetry.text import fact, shown
from uploader.telemetry.told import Told
from uploader.web.openapi.results import FileState, FileStatus

log = logging.getLogger(__name__)
MAX_KEPT = 100_000
FOLDER = "folder"  # the part of a session's work that an error is of
UNREMEMBERED = 100  # files a second that a scan queues on average while more fail than can be remembered


@dataclass(slots=True)
class Item:
    """One file that is ready. `found`: its fingerprint then; `attempts`: failed ones; `size`, `uploaded`: bytes.

    `since`: when it was queued, monotonic seconds.
    """

    files: "Inventory"
    path: str
    found: Fingerprint
    attempts: int
    size: int
    uploaded: int = 0
    since: float = field(default_factory=time.monotonic)

    def sent(self, size: int) -> None:
        """Count bytes that were handed over or are in the store; negative: bytes that have to be sent again."""
        self.files.count_sent(self, size)


class Inventory:
    """The files of one session, as far as they are remembered. Thread-safe."""

    def __init__(self, session: str, limit: int, *, fresh: bool = False) -> None:
        """`limit`: files that may wait in each queue.

        `fresh`: the session's folder was made just now, so that no earlier run can have given a claim back.
        `receipted`, set by who knows: which of these files have a receipt on the share; may raise OSError.
        """
        self.session = session
        self.limit = limit
        self.fresh = fresh
        self.meter = Throughput()
        self.told = Told()
        self.receipted: Callable[[Mapping[str, Fingerprint]], set[str]] = lambda _: set()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)  # notified when the session ends, and when its last upload has
        self._cancelled = False
        self._known = Known()
        self._scans = 0
        self._finished = 0  # files that workers are done with, whatever the outcome
        self._pace = 0.0

    # A session that ends

    @property
    def cancelled(self) -> bool:
        """Whether the session has ended here: waiting files are dropped, uploads in progress give up."""
        return self._cancelled

    def cancel(self) -> None:
        """End the session here."""
        with self._lock:
            self._cancelled = True
            self._idle.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """After `cancel`, wait at most `timeout` seconds until no upload is in progress; False when one still is."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._known.busy, timeout)

    # The way of one file, from the queue to its end

    def admit(self, path: str, found: Fingerprint) -> Item | None:
        """Queue a file; None when its path is queued, busy or reserved already."""
        with self._lock:
            self._known.passed_over |= path in self._known.reserved
            if self._known.held(path):
                return None
            failure = self._known.failures.get(path)
            self._known.settling.drop(path)
            item = self._known.queued[path] = Item(self, path, found, failure.attempts if failure else 0, found.size)
            return item

    def begin(self, item: Item) -> None:
        """Note that a worker has taken a file."""
        with self._lock:
            self._known.busy[item.path] = self._known.queued.pop(item.path)

    def resize(self, item: Item, size: int) -> None:
        """Set the size in bytes of a file that is being uploaded."""
        with self._lock:
            item.size = size

    def count_sent(self, item: Item, size: int) -> None:
        """Count bytes of a file that is being uploaded; negative: bytes that have to be sent again."""
        with self._lock:
            item.uploaded += size
        self.meter.add(size)

    def count_done(self, item: Item) -> None:
        """Count a file that is in the store and has become `.completed`."""
        with self._lock:
            self._known.failures.drop(item.path)
            self._known.count(item.size)

    def done(self, item: Item) -> None:
        """Note that a worker is done with a file, whatever the outcome."""
        with self._lock:
            self._known.busy.pop(item.path, None)
            self._finished += 1
            if self._cancelled and not self._known.busy:
                self._idle.notify_all()

    def drop(self, items: Iterable[Item]) -> None:
        """Forget files that no worker has taken."""
        with self._lock:
            for item in items:
                self._known.queued.pop(item.path, None)

    def count_receipts(self, files: int, size: int, replaced: int) -> None:
        """Count the files, their bytes, and what they replaced, that were sent and deleted before this run."""
        with self._lock:
            self._known.completed += files
            self._known.completed_bytes += size
            self._known.replaced += replaced

    def count_replaced(self, times: int) -> None:
        """Count files in the store that took the place of other content; negative: they are sent again."""
        with self._lock:
            self._known.replaced += times

    def count_earlier(self, path: str, size: int, *, receipted: bool = False, sure: bool = False) -> None:
        """Count once a file of `size` bytes that was completed before this run; `receipted`: its receipt counts it.

        `sure`: just before its deletion, in place of what was thought before: the receipt may be another file's.
        """
        with self._lock:
            earlier = self._known.earlier
            if not sure and (path in earlier or len(earlier) >= MAX_KEPT):
                return
            self._known.count(size, (not receipted) - (earlier.get(path) is not None))
            if path in earlier or len(earlier) < MAX_KEPT:
                earlier[path] = None if receipted else size

    def has_receipt(self, path: str) -> bool | None:
        """Tell whether a file that was completed before this run is thought to have a receipt; None: not known."""
        with self._lock:
            earlier = self._known.earlier
            return earlier[path] is None if path in earlier else None

    def uncount(self, path: str, size: int | None) -> None:
        """Stop counting a file: that it was sent cannot be proven, or it is sent again.

        `size`: of a file that is counted in any case; None: only one of an earlier run may be.
        """
        with self._lock:
            earlier = self._known.earlier.pop(path, None)
            if (counted := earlier if size is None else size) is not None:
                self._known.count(counted, -1)

    def forget_earlier(self, path: str) -> None:
        """Forget a counted file that is gone."""
        with self._lock:
            self._known.earlier.pop(path, None)

    # Files that failed, that settle, or that are kept

    def fail(self, path: str, error: Exception, size: int = 0) -> None:
        """Remember a failure, and when to try again; log it when it is not the one that was logged before.

        When MAX_FAILURES are remembered already, the next scan finds this file again, and `pace` slows that scan down.
        """
        text = str(error) if isinstance(error, FileError) else f"{type(error).__name__}: {error}"
        with self._lock:
            before = self._known.failures.get(path)
            told = before is not None and fact(before.error) == fact(text[:MAX_TEXT])
            eligible, final = not isinstance(error, NotEligible | NameRefused), isinstance(error, NameRefused)
            failure = self._known.failures.add(path, text, size, self._scans, eligible=eligible, final=final)
            if failure is None and path in self._known.busy:
                self._pace = max(self._pace, time.monotonic()) + 1 / UNREMEMBERED
        instruments.failed(error)
        if failure and not told:
            extra = {"session": self.session, "path": shown(path), "attempt": failure.attempts, "error": text}
            fault = None if isinstance(error, FileError | OSError) else error  # ours: the log says where
            log.log(logging.ERROR if fault else logging.WARNING, names.FILE_FAILED, extra=extra, exc_info=fault)

    def failure(self, path: str) -> Failure | None:
        """Return what is remembered of a file that failed."""
        with self._lock:
            return self._known.failures.get(path)

    def retry(self, path: str | None = None) -> int:
        """Make the failed files, or one of them, due at once; return how many they are."""
        with self._lock:
            return self._known.failures.retry(path)

    def pace(self) -> float:
        """Slow a scan down to UNREMEMBERED files a second while more files fail than can be remembered.

        Returns the seconds waited. Only the scan waits, no worker: good files behind the failing ones get their turn.
        """
        with self._lock:
            began = time.monotonic()
            if self._pace > began:
                self._idle.wait_for(lambda: self._cancelled, self._pace - began)
            return time.monotonic() - began

    def note_error(self, text: str, part: str = FOLDER, path: str | None = None) -> bool:
        """Show an error of a part of the session's work until it has passed; False when it is shown already.

        `path`: of the file or folder that it is about.
        """
        with self._lock:
            before = self._known.errors.get(part)
            if new := before is None or (fact(before[0]), before[2]) != (fact(text), path):
                self._known.errors[part] = text, time.time(), path
            return new

    def clear_error(self, part: str = FOLDER) -> None:
        """Show no longer an error that has passed."""
        with self._lock:
            self._known.errors.pop(part, None)

    def settle(self, path: str, settling: Settling) -> bool:
        """Remember a file that may still be written; False when too many are remembered already."""
        with self._lock:
            if self._known.settling.full() and not self._known.settling.get(path):
                return False
            self._known.settling.put(path, settling, self._scans)
            return True

    def given_back(self, path: str, look: Fingerprint, settle: float, *, reason: str = "") -> None:
        """Remember that we renamed this file ourselves: that is no sign that it is finished. `settle`: seconds."""
        now = time.monotonic()
        settling = Settling(look, now, now + settle, given_back=True, reason=reason)
        with self._lock:
            self._known.settling.put(path, settling, self._scans)

    def settling(self, path: str) -> Settling | None:
        """Return what is remembered of a file that may still be written."""
        with self._lock:
            return self._known.settling.get(path)

    def keep(self, path: str, reason: str) -> bool:
        """Show a file that has to stay, and why; False when that is shown already, or MAX_KEPT files are."""
        with self._lock:
            kept = self._known.kept
            if (path in kept and kept[path][0] == reason) or len(kept) >= MAX_KEPT:
                return False
            kept[path] = reason, time.time()
            return True

    def release(self, path: str) -> None:
        """Stop showing a file that had to stay."""
        with self._lock:
            self._known.kept.pop(path, None)

    def kept(self) -> dict[str, str]:
        """Return the files that have to stay, with the reasons."""
        with self._lock:
            return {path: reason for path, (reason, _) in self._known.kept.items()}

    # Scans and the sweeper

    def begin_scan(self) -> int:
        """Begin a whole scan; return the number that `drained` takes at its end."""
        with self._lock:
            self._scans += 1
            self._known.passed_over = False
            return self._finished

    def end_scan(self, beyond: int) -> None:
        """Forget the files that a whole scan did not see. `beyond`: files that it saw and that found no room."""
        with self._lock:
            self._known.beyond = beyond
            self._known.errors.pop(FOLDER, None)
            self._known.drop_unseen(self._scans)

    def skip(self, path: str, now: float) -> bool:
        """Tell whether a scan has nothing to do for this path, and remember that the scan saw it."""
        with self._lock:
            due = self._known.seen(path, self._scans)
            return self._known.held(path) or due > now

    def count_beyond(self, count: int) -> None:
        """Set how many files on the share have found no room yet."""
        with self._lock:
            self._known.beyond = count

    @contextmanager
    def reserve(self, path: str) -> Iterator[bool]:
        """Keep workers off a path inside the block; yield False when it is queued, busy or reserved already.

        A reserved path is not pending: the sweeper's file is in the store, or kept.
        """
        with self._lock:
            if mine := not self._known.held(path):
                self._known.reserved.add(path)
        try:
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._known.reserved.discard(path)

    # What others ask

    def knows(self, path: str) -> bool:
        """Tell whether a file waits or is under way."""
        with self._lock:
            return path in self._known.queued or path in self._known.busy

    def remembers(self, path: str) -> bool:
        """Tell whether a file counts already: it waits, is under way, settles or has failed."""
        with self._lock:
            return self._known.held(path) or bool(self._known.settling.get(path) or self._known.failures.get(path))

    def paths(self, state: FileState) -> list[str]:
        """Return the paths of the files in a state, in no order."""
        with self._lock:
            return self._known.paths(state)

    def describe(self, path: str) -> FileStatus | None:
        """Return what is remembered of one file."""
        with self._lock:
            return self._known.describe(path)

    def oldest(self) -> float:
        """Return for how many seconds a file has been queued that no worker has taken; 0 when there is none."""
        with self._lock:
            first = next(iter(self._known.queued.values()), None)
            return time.monotonic() - first.since if first else 0.0

    def uploading(self) -> int:
        """Return how many files are under way."""
        with self._lock:
            return len(self._known.busy)

    def pending(self) -> int:
        """Return how many eligible files are known that are not in the store yet."""
        with self._lock:
            return self._known.pending()

    def drained(self, before: int) -> bool:
        """Tell at a scan's end whether nothing is pending, and no worker finished a file during the scan.

        If a worker did, a new file may have taken the name that the scan passed over while the worker had it.
        """
        with self._lock:
            return self._finished == before and not self._known.pending()

    def snapshot(self, most: int = 0) -> Snapshot:
        """Return the counts, and at most `most` files: first uploading, then failed, then kept."""
        rate = self.meter.rate()
        with self._lock:
            return self._known.snapshot(most, rate)

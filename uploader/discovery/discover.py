"""Discovery of one session's files: watch, then scan, then loop. Events are hints; only a scan finds every file."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.discovery.open_files import OpenFiles
from uploader.discovery.readiness import Pass, Readiness
from uploader.discovery.watch import Watch
from uploader.errors import Cancelled, FileError, NotEligible
from uploader.settings import Settings
from uploader.share.fingerprint import Fingerprint, stamp
from uploader.share.listings import Listings
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.paths import join, opened
from uploader.share.scan import Found, Kind, Rule, scan
from uploader.telemetry import instruments, names
from uploader.thread import spawn

log = logging.getLogger(__name__)
MAX_HINTS = 10_000
COUNTED_AT_ONCE = 50_000  # files, about 500 bytes each
IDLE_LOOK = 0.5  # seconds between two checks whether workers have nothing to do
PAUSE = 3  # the next scan waits at least this many times the work of the last


class Discovery:
    """One thread that finds the files of one session, until the session ends."""

    def __init__(
        self,
        files: Inventory,
        rule: Rule,
        settings: Settings,
        share: Share,
        watch: Watch,
        backlog: Queues,
        wake: threading.Event,
    ) -> None:
        """`wake` is set when a drain has finished."""
        self.finished = False  # True when a drain has found nothing left to do
        self.files = files
        self.rule = rule
        self.settings = settings
        self.share = share
        self._watch = watch
        self._backlog = backlog
        self._hints: deque[tuple[str, str]] = deque()
        self._open = OpenFiles()
        self._rescan = True
        self._hurry = False  # a drain scans at once, without waiting for the pause to end
        self._woken = threading.Event()
        self._wake = wake
        self._draining = False
        self.thread: threading.Thread | None = None
        self._readiness = Readiness(files, settings, share.tells)
        self._listings = Listings()
        self._first: Pass | None = None
        self._last: Pass | None = None
        self._beyond = 0  # files that a scan which waits for room has counted behind it

    def start(self) -> None:
        """Start the thread."""
        self._backlog.add(self.files)
        self.thread = spawn(f"discovery-{self.files.session}", self._run, ends=True)

    def drain(self) -> None:
        """Set `finished` as soon as every eligible file is done."""
        self._draining = True
        self._hurry = True
        self._woken.set()

    def drained(self) -> bool:
        """Tell whether the drain has finished; it goes on when the sweeper has given a file its name back since."""
        if self.finished and self.files.pending():
            self.finished = False
            self.rescan()
        return self.finished

    def stop(self) -> None:
        """End at once: queued files are dropped, uploads in progress give up. Returns when the thread has ended."""
        self._backlog.remove(self.files)
        self._woken.set()
        if self.thread and self.thread is not threading.current_thread():
            self.thread.join()
        self._watch.drop(self)  # not earlier: a running scan adds watches

    def arrived(self, folder: str, name: str) -> None:
        """Look at this file soon, or scan soon when MAX_HINTS files wait to be looked at."""
        if len(self._hints) < MAX_HINTS:
            self._hints.append((folder, name))
            self._woken.set()
        else:
            self.rescan()

    def rescan(self) -> None:
        """Scan soon."""
        self._rescan = True
        self._woken.set()

    def _run(self) -> None:
        self.count_completed()
        next_scan = soonest = 0.0
        while not self.files.cancelled:
            now = time.monotonic()
            if now >= next_scan or (self._rescan and now >= soonest) or self._idle(now) or self._hurry:
                self._hurry = False
                busy = self.scan_once()
                now = time.monotonic()
                soonest = now + PAUSE * busy
                next_scan = max(soonest, now + self.settings.scan_interval)
            due = min(soonest if self._rescan else next_scan, self._open.next())
            self._woken.wait(min(IDLE_LOOK, max(0.0, due - time.monotonic())))
            self._woken.clear()
            for _ in range(len(self._hints)):  # only as many as wait now: the scan must have its turn
                if self.files.cancelled:
                    break
                self.hear(*self._hints.popleft())
            self.look_again(time.monotonic())

    def _idle(self, now: float) -> bool:
        """Tell whether workers have nothing to do although files that the last scan saw have settled."""
        last = self._last
        return last is not None and now >= last.ripe and not self._backlog.waits(self.files)

    def count_completed(self) -> None:
        """Count the `.completed` files still on the share: a restart forgets what was done before."""
        met: dict[str, Fingerprint] = {}
        for found in self.walk():
            if self.files.cancelled:
                return
            if found.kind is Kind.COMPLETED:
                try:
                    met[found.path] = stamp(found.folder, found.name)
                except OSError as error:  # mostly the sweeper has deleted the file
                    self.share.judge(error)
            if len(met) >= COUNTED_AT_ONCE:
                self._count_earlier(met)
        self._count_earlier(met)

    def _count_earlier(self, met: dict[str, Fingerprint]) -> None:
        """Count those that have no receipt: the others are counted by it."""
        try:
            receipted = self.files.receipted(met) if met else set()
        except OSError as error:
            self.share.judge(error)
            receipted = set()
        for path, look in met.items():
            self.files.count_earlier(path, look.size, receipted=path in receipted)
        met.clear()

    def walk(self) -> Iterator[Found]:
        """Yield every name of the session's folder without watching; none when the folder is missing."""
        try:
            with opened(self.share.fd, self.files.session) as top:
                yield from scan(top, self.rule)
        except OSError as error:
            self.share.judge(error)

    def look_again(self, now: float) -> None:
        """Look at the files that somebody had open when an event came, if they are due. `now`: monotonic seconds."""
        for folder, name in self._open.take(now):
            self.hear(folder, name)

    def hear(self, folder: str, name: str) -> None:
        """Queue a file that an event has reported as finished; ask for a scan where that is not possible."""
        path = join(folder, name)
        if (
            not self.rule.eligible(name)
            or self.rule.objection(path)
            or any(map(self.rule.unfinished, folder.split("/")))
        ):
            return
        settling = self.files.settling(path)
        if self.files.knows(path) or (settling and settling.given_back):
            return
        try:
            with opened(self.share.fd, join(self.files.session, folder)) as at:
                found = self._readiness.closed(at, name, path)
        except FileNotFoundError:
            return
        except (FileError, OSError):
            self._rescan = True  # the scan reports what is wrong with the file
            return
        if isinstance(found, float):
            if not self._open.add(folder, name, found) and self._last:
                self._last.ripe = min(self._last.ripe, found)
            return
        if self._backlog.offer(self.files, path, found):
            self._measure(path, found)
        else:
            self._rescan = True

    def scan_once(self) -> float:
        """Scan the session's folder; return the seconds of work, without those spent waiting for room."""
        self._listings.begin(whole=self._rescan or self._draining)
        self._rescan = False
        draining, before = self._draining, self.files.begin_scan()
        try:
            last, one = self._last, self._pass()
            self._last = one
            self._first = self._first or one
            self._readiness.begin(one.server)
            with opened(self.share.fd, self.files.session) as top:
                for found in scan(top, self.rule, self._enter, one.vanish, self._listings):
                    self._meet(found, one)
        except Cancelled:
            return 0.0
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # a lost share is not an empty folder (I6)
            if self.files.note_error(text := f"the session's folder cannot be read: {error.strerror}"):
                log.error(names.SESSION_FOLDER_MISSING, extra={"session": self.files.session, "error": text})  # noqa: TRY400 no fault of the program
            return 0.0
        self.files.end_scan(one.beyond)
        # What has vanished may lie where the scan had been. What is missing each time has a name that nobody can open.
        if one.vanished and not (last and one.vanished == last.vanished):
            self._rescan = True
        if draining and not self.finished and not self._rescan and self.files.drained(before):
            self.finished = True
            self._wake.set()
        took = max(0.0, time.monotonic() - one.began - one.waited)
        instruments.SCAN_DURATION.record(took)
        return took

    def _pass(self) -> Pass:
        began, server = time.monotonic(), self.share.server_time()
        return Pass(server, began, Mark(self.share, self.files.session).until())  # read after the server's time

    def _enter(self, path: str, folder: int) -> None:
        self._watch.add(self, path, folder)

    def _meet(self, found: Found, one: Pass) -> None:
        if self.files.cancelled:
            raise Cancelled
        now = time.monotonic()
        if found.kind is Kind.COMPLETED or self.files.skip(found.path, now):
            return
        try:
            if found.kind is Kind.ODD:
                raise NotEligible(found.reason)
            if found.error:
                raise found.error
            if not self._crowded(found.path) and (ready := self._readiness.look(found, one, now)):
                self._queue(found.path, ready, one)
        except FileNotFoundError:
            one.vanish(found.path)
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            self.files.fail(found.path, error)

    def _crowded(self, path: str) -> bool:
        """Tell whether this file failed before and no more such files fit in the queue: a later scan finds it again."""
        failure = self.files.failure(path)
        return failure is not None and self._backlog.lane(failure.size).full(self.files, again=True)

    def _queue(self, path: str, found: Fingerprint, one: Pass) -> None:
        one.waited += self.files.pace()
        while not self._backlog.offer(self.files, path, found):
            if self.files.cancelled:
                raise Cancelled
            if self.files.failure(path):
                return  # enough of those that failed before wait: the next scan finds it again
            if found.size > self._backlog.block_size:
                one.beyond += 1  # the next scan finds it again; small files behind it do not wait
                return
            if not one.counted:
                one.counted = True
                self._count_beyond()
            began = time.monotonic()
            self._backlog.small.wait_for_room(self.files, 1.0)
            one.waited += time.monotonic() - began
        self._measure(path, found)
        if one.counted:
            self._beyond = max(one.beyond, self._beyond - 1)
            self.files.count_beyond(self._beyond)

    def _count_beyond(self) -> None:
        """Count the files that are not remembered yet, by their names alone.

        The scan may wait for room for hours: without this count the status would show the queue's length as all that
        is left, and a time left that never shrinks.
        """
        self._beyond = 0
        for other in self.walk():
            if self.files.cancelled:
                raise Cancelled
            self._beyond += other.kind in {Kind.PLAIN, Kind.PROCESSING} and not self.files.remembers(other.path)
        self.files.count_beyond(self._beyond)

    def _measure(self, path: str, found: Fingerprint) -> None:
        """Record how long a file waited, by the server's clock, before it was queued for the first time."""
        if self._first and self._last and not self.files.failure(path):
            now = self._last.server + int((time.monotonic() - self._last.began) * 1e9)
            instruments.DISCOVERY_DELAY.record(max(0, now - max(found.ctime_ns, self._first.server)) / 1e9)

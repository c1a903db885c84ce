"""Discovery of one session's files: watch, then scan, then loop. Events are hints, the scan is the truth."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator

from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.discovery.readiness import Pass, Readiness
from uploader.discovery.watch import Watch
from uploader.errors import Cancelled, FileError, NotEligible
from uploader.settings import Settings
from uploader.share.fingerprint import Fingerprint, size
from uploader.share.mount import Share
from uploader.share.paths import join, opened
from uploader.share.scan import Found, Kind, Rule, scan
from uploader.telemetry import instruments, names
from uploader.thread import spawn

log = logging.getLogger(__name__)
MAX_HINTS = 10_000
IDLE_LOOK = 0.5  # seconds between two looks at whether the workers have nothing left to do
PAUSE = 3  # the next scan is no sooner than this many times the last one's duration


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
        self.finished = False  # a drain has found nothing left to do
        self.files = files
        self.rule = rule
        self.settings = settings
        self.share = share
        self._watch = watch
        self._backlog = backlog
        self._hints: deque[tuple[str, str]] = deque()
        self._rescan = True
        self._hurry = False  # a drain need not wait out the pause to see that nothing is left
        self._woken = threading.Event()
        self._wake = wake
        self._draining = False
        self.thread: threading.Thread | None = None
        self._readiness = Readiness(files, settings, share.tells)
        self._first: Pass | None = None
        self._last: Pass | None = None

    def start(self) -> None:
        """Begin."""
        self._backlog.add(self.files)
        self.thread = spawn(f"discovery-{self.files.session}", self._run, ends=True)

    def drain(self) -> None:
        """Be `finished` as soon as every eligible file is done."""
        self._draining = True
        self._hurry = True
        self._woken.set()

    def stop(self) -> None:
        """End at once: queued files are dropped, those under way give up. Returns when discovery has ended."""
        self._backlog.remove(self.files)
        self._woken.set()
        if self.thread and self.thread is not threading.current_thread():
            self.thread.join()
        self._watch.drop(self)  # not earlier: a scan under way adds watches

    def arrived(self, folder: str, name: str) -> None:
        """Look at this file soon; a scan finds it when too many wait to be looked at."""
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
            due = soonest if self._rescan else next_scan
            self._woken.wait(min(IDLE_LOOK, max(0.0, due - time.monotonic())))
            self._woken.clear()
            for _ in range(len(self._hints)):  # no more than were there: the scan must have its turn
                if self.files.cancelled:
                    break
                self.hear(*self._hints.popleft())

    def _idle(self, now: float) -> bool:
        """Tell whether the pause keeps workers from files that the last scan left behind and that are ripe now."""
        last = self._last
        return last is not None and now >= last.ripe and not self._backlog.waits(self.files)

    def count_completed(self) -> None:
        """Count the `.completed` files still on the share: a restart forgets what was done before."""
        for found in self.walk():
            if self.files.cancelled:
                return
            if found.kind is Kind.COMPLETED:
                try:
                    self.files.count_earlier(size(found.folder, found.name))
                except OSError as error:  # the sweeper was quicker, mostly
                    self.share.judge(error)

    def walk(self) -> Iterator[Found]:
        """Give every name without watching; a folder that is not there has none."""
        try:
            with opened(self.share.fd, self.files.session) as top:
                yield from scan(top, self.rule)
        except OSError as error:
            self.share.judge(error)

    def hear(self, folder: str, name: str) -> None:
        """Queue the file that an event calls finished, unless a scan has to look at it."""
        path = join(folder, name)
        if not self.rule.eligible(name) or self.rule.objection(path):
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
            self._rescan = True  # the scan says what is wrong with it
            return
        if found is None:
            return
        if self._backlog.offer(self.files, path, found):
            self._measure(path, found)
        else:
            self._rescan = True

    def scan_once(self) -> float:
        """Go over all folders; return the seconds of work in it."""
        self._rescan = False
        draining, before = self._draining, self.files.begin_scan()
        try:
            one = self._last = Pass(self.share.server_time(), time.monotonic())
            self._first = self._first or one
            self._readiness.begin(one.server)
            with opened(self.share.fd, self.files.session) as top:
                for found in scan(top, self.rule, self._enter):
                    self._meet(found, one)
        except Cancelled:
            return 0.0
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # gone is not empty (I6)
            if self.files.note_error(text := f"the session's folder cannot be read: {error.strerror}"):
                log.error(names.SESSION_FOLDER_MISSING, extra={"session": self.files.session, "error": text})  # noqa: TRY400 it is no fault of ours
            return 0.0
        self.files.end_scan(one.beyond)
        if draining and not self.finished and not self._rescan and self.files.drained(before):
            self.finished = True
            self._wake.set()
        took = max(0.0, time.monotonic() - one.began - one.waited)
        instruments.SCAN_DURATION.record(took)
        return took

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
            return
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            self.files.fail(found.path, error)

    def _crowded(self, path: str) -> bool:
        """Tell whether this file has failed before and enough of its kind wait: the next scan finds it again."""
        failure = self.files.failure(path)
        return failure is not None and self._backlog.lane(failure.size).full(self.files, again=True)

    def _queue(self, path: str, found: Fingerprint, one: Pass) -> None:
        one.waited += self.files.pace()
        while not self._backlog.offer(self.files, path, found):
            if self.files.cancelled:
                raise Cancelled
            if self._crowded(path):
                return
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
            self.files.one_from_beyond(one.beyond)

    def _count_beyond(self) -> None:
        """Count what else is there, by names alone.

        The scan waits here until there is room, for hours perhaps: without this the status would show the queue's
        length as all that is left, and a time to the end that never comes nearer.
        """
        wanted = {Kind.PLAIN, Kind.PROCESSING}
        self.files.count_beyond(
            sum(other.kind in wanted and not self.files.remembers(other.path) for other in self.walk())
        )

    def _measure(self, path: str, found: Fingerprint) -> None:
        """Record how long a file lay there, by the server's clock, before it was queued for the first time."""
        if self._first and self._last and not self.files.failure(path):
            now = self._last.server + int((time.monotonic() - self._last.began) * 1e9)
            instruments.DISCOVERY_DELAY.record(max(0, now - max(found.ctime_ns, self._first.server)) / 1e9)

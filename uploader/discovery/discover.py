"""Discovery of one session's files: watch, then scan, then loop. Events are hints, the scan is the truth."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from uploader.backlog.inventory import Files
from uploader.backlog.queues import Backlog
from uploader.discovery.readiness import Pass, Readiness
from uploader.discovery.watch import Watch
from uploader.errors import Cancelled, FileError, InTheWay, NotEligible
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import Look, look, size
from uploader.share.mount import Share
from uploader.share.paths import PROCESSING, join, opened
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
        self, files: Files, rule: Rule, settings: Settings, share: Share, watch: Watch, backlog: Backlog
    ) -> None:
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
        self._drained: Callable[[], None] | None = None
        self._stop = threading.Event()
        self.thread: threading.Thread | None = None
        self._readiness = Readiness(files, settings)
        self._first: Pass | None = None
        self._last: Pass | None = None

    def start(self) -> None:
        """Begin."""
        self._backlog.add(self.files)
        self.thread = spawn(f"discovery-{self.files.session}", self._run, ends=True)

    def drain(self, finished: Callable[[], None]) -> None:
        """Call `finished` as soon as every eligible file is done."""
        self._drained = finished
        self._hurry = True
        self._woken.set()

    def stop(self) -> None:
        """End at once: queued files are dropped, those under way give up. Returns when discovery has ended."""
        self._backlog.remove(self.files)
        self._stop.set()
        self._woken.set()
        if self.thread and self.thread is not threading.current_thread():
            self.thread.join()
        self._watch.drop(self)  # not earlier: a scan under way adds watches

    def finished(self, folder: str, name: str) -> None:
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
        self._count_completed()
        next_scan = soonest = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= next_scan or (self._rescan and now >= soonest) or self._idle(now) or self._hurry:
                self._rescan = self._hurry = False
                busy = self._scan()
                now = time.monotonic()
                soonest = now + PAUSE * busy
                next_scan = max(soonest, now + self.settings.scan_interval)
            due = soonest if self._rescan else next_scan
            self._woken.wait(min(IDLE_LOOK, max(0.0, due - time.monotonic())))
            self._woken.clear()
            for _ in range(len(self._hints)):  # no more than were there: the scan must have its turn
                if self._stop.is_set():
                    break
                self._hear(*self._hints.popleft())

    def _idle(self, now: float) -> bool:
        """Tell whether the pause keeps workers from files that the last scan left behind and that are ripe now."""
        last = self._last
        return last is not None and now >= last.ripe and not (self.files.small or self.files.large)

    def _count_completed(self) -> None:
        """After a restart: what the disk still tells of the files that were done before."""
        for found in self._walk():
            if self._stop.is_set():
                return
            if found.kind is Kind.COMPLETED:
                try:
                    self.files.completed_bytes += size(found.folder, found.name)
                except OSError as error:  # the sweeper was quicker, mostly
                    self.share.judge(error)
                    continue
                self.files.completed += 1

    def _walk(self) -> Iterator[Found]:
        """Scan without watching; a folder that is not there has nothing."""
        try:
            with opened(self.share.fd, self.files.session) as top:
                yield from scan(top, self.rule)
        except OSError as error:
            self.share.judge(error)

    def _hear(self, folder: str, name: str) -> None:
        path = join(folder, name)
        if not self.rule.eligible(name) or self.rule.objection(path):
            return
        settling = self.files.settling.get(path)
        if path in self.files.known or (settling and settling.given_back):
            return
        try:
            with opened(self.share.fd, join(self.files.session, folder)) as at:
                found = look(at, name)
        except FileNotFoundError:
            return
        except (FileError, OSError):
            self._rescan = True  # the scan says what is wrong with it
            return
        if self._backlog.offer(self.files, path, found):
            self._measure(path, found)
        else:
            self._rescan = True

    def _scan(self) -> float:
        """Go over all folders; return the seconds of work in it."""
        drained, before = self._drained, self.files.finished
        self.files.scans += 1
        self.files.passed_over = False
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
            if self.files.last_error != (text := f"the session's folder cannot be read: {error.strerror}"):
                log.error(names.SESSION_FOLDER_MISSING, extra={"session": self.files.session, "error": text})  # noqa: TRY400 it is no fault of ours
            self.files.last_error = text
            return 0.0
        self.files.beyond = one.beyond
        self.files.forget_unseen()
        if drained and self.files.finished == before and not self.files.pending() and not self._rescan:
            self._drained = None
            drained()
        took = max(0.0, time.monotonic() - one.began - one.waited)
        instruments.SCAN_DURATION.record(took)
        return took

    def _enter(self, path: str, folder: int) -> None:
        self._watch.add(self, path, folder)

    def _meet(self, found: Found, one: Pass) -> None:
        if self._stop.is_set():
            raise Cancelled
        now = time.monotonic()
        if found.kind is Kind.COMPLETED or self.files.skip(found.path, now):
            return
        try:
            if found.kind is Kind.ODD:
                raise NotEligible(found.reason)
            if found.error:
                raise found.error
            if ready := self._readiness.look(found, one, now):
                self._queue(found.path, ready, one)
        except FileNotFoundError:
            return
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            self.files.fail(found.path, error)

    def _queue(self, path: str, found: Look, one: Pass) -> None:
        while not self._backlog.offer(self.files, path, found):
            if self._stop.is_set():
                raise Cancelled
            if found.size > self._backlog.block_size:
                one.beyond += 1  # the next scan finds it again; small files behind it do not wait
                return
            if not one.counted:
                one.counted = True
                self.files.beyond = sum(
                    other.kind in {Kind.PLAIN, Kind.PROCESSING} and other.path not in self.files.known
                    for other in self._walk()
                )
            began = time.monotonic()
            self._backlog.wait_for_room(self.files, 1.0)
            one.waited += time.monotonic() - began
        self._measure(path, found)
        if one.counted:
            self.files.beyond = max(one.beyond, self.files.beyond - 1)

    def _measure(self, path: str, found: Look) -> None:
        """Record how long a file lay there, by the server's clock, before it was queued for the first time."""
        if self._first and self._last and path not in self.files.failures:
            now = self._last.server + int((time.monotonic() - self._last.began) * 1e9)
            instruments.DISCOVERY_DELAY.record(max(0, now - max(found.ctime_ns, self._first.server)) / 1e9)

    def give_back(self) -> None:
        """After stop: undo every claim that is left in the folder (I4 holds). One that cannot be undone stays."""
        for found in self._walk():
            if found.kind is Kind.PROCESSING:
                try:
                    Claim(found.folder, found.name.removesuffix(PROCESSING)).give_back()
                except FileNotFoundError:
                    continue
                except (InTheWay, OSError) as error:  # fs.protected_hardlinks refuses to link other people's files
                    if isinstance(error, OSError):
                        self.share.judge(error)
                    self.files.fail(found.path, error)

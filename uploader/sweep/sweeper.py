"""The sweeper: walks the sessions of this shard, and deletes `.completed` files whose time has come.

Most are deleted without being read. What has to be read is read at once where it is small, and by a thread of its own
where it is large, one after the other: the others do not wait for it.
It asks the sessions for all it has to know (`Sessions`); no field of it is set from outside.
"""

import logging
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from math import inf
from typing import Protocol

from uploader.backlog.inventory import Inventory
from uploader.errors import FileError, LargeRead, StoreAway, StoreError
from uploader.naming import COMPLETED, PROCESSING
from uploader.session import Session, State
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import inode, look
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.paths import join, opened, split
from uploader.share.scan import Found, Kind, Rule, scan
from uploader.sweep.completed import RECEIPTS, RECHECK, Completed, Seen
from uploader.sweep.readings import Readings
from uploader.sweep.seal import Sealed
from uploader.sweep.verdict import KEPT, Verdict
from uploader.telemetry import names
from uploader.telemetry.text import shown
from uploader.thread import spawn

log = logging.getLogger(__name__)
WALK = 12  # sweeps between two walks for files that this process did not complete
BATCH = 10_000  # files whose receipts are written at once
SWEEP, SHUT = "sweep", "shut folder"  # the parts of a session's work that an error is of
LARGE = 16 * 2**20  # bytes; a file of more is not read while others wait: on a share of 100 MB/s this takes 0.2 s
PAUSE = 3  # the next walk waits at least this many times the duration of the last


@dataclass(frozen=True, slots=True)
class Owned:
    """A session of this shard, as it is now."""

    session: Session
    files: Inventory

    @property
    def name(self) -> str:
        """The session's name."""
        return self.session.name

    @property
    def stopped(self) -> bool:
        """Whether it takes no files any more."""
        return self.session.state is State.STOPPED


class Sessions(Protocol):
    """What the sweeper asks of the sessions. Every method may raise OSError."""

    def owned(self) -> dict[str, Owned]:
        """Return the sessions of this shard by name, stopped ones too. From memory."""

    def swept(self, name: str, sealed: Sealed) -> None:
        """End a stopped session of which nothing is left: write its result, remove its journals and its record."""

    def reopen(self, name: str) -> AbstractContextManager[Inventory | None]:
        """Let a stopped session take a file back: yield the inventory of the run that does, None when there is none.

        A drained session drains again: its record says so on disk before the caller renames the file, and its
        discovery starts afterwards. A session that was stopped at once stays stopped.
        """


class Leftovers(Protocol):
    """What else is swept on each turn: the staging folder."""

    def sweep(self) -> None:
        """Delete what no upload uses."""


class Sweeper:
    """Two threads for all sessions: one walks and deletes, the other reads the large files that have to be read."""

    def __init__(
        self, settings: Settings, share: Share, completed: Completed, sessions: Sessions, staging: Leftovers | None
    ) -> None:
        self.settings = settings
        self.share = share
        self.completed = completed
        self.sessions = sessions
        self.staging = staging
        self._next_walk: dict[tuple[str, bool], float] = {}  # by session name, and whether the session had stopped
        self._next_due = inf  # set by each look for what is due
        self._readings = Readings()

    def start(self) -> None:
        """Start the threads."""
        spawn("sweeper", self._run)
        spawn("sweeper-reads", self._read)

    def _run(self) -> None:
        while True:
            self.turn(time.monotonic())
            time.sleep(self.settings.sweep_interval)

    def _read(self) -> None:
        while True:
            self.read_next()

    def read_next(self) -> None:
        """Wait for a large file that has to be read, read it, and act on its verdict."""
        name, path = self._readings.next()
        if session := self.sessions.owned().get(name):
            self._read_leftover(session, path)

    def turn(self, now: float) -> None:
        """Sweep the files that are due at `now`, monotonic seconds; then walk the sessions whose walk is due."""
        self.collect_due(now)
        sessions = self.sessions.owned()
        self._next_walk = {key: when for key, when in self._next_walk.items() if key[0] in sessions}
        for session in sessions.values():
            if time.monotonic() >= self._next_walk.get((session.name, session.stopped), 0.0):
                self.walk_once(session)
        if self.staging:
            self.staging.sweep()

    def collect_due(self, now: float) -> None:
        """Sweep the files that this process completed and whose retention is over at `now`, monotonic seconds."""
        due: dict[str, list[str]] = {}
        for session, path in self.completed.proofs.due(now):
            due.setdefault(session, []).append(path)
        for session, paths in due.items():
            if owned := self.sessions.owned().get(session):
                self._collect_all(owned, paths)
                continue
            for path in paths:
                self.completed.proofs.forget((session, path))  # another shard owns the session now
        self._next_due = time.monotonic() + self.settings.sweep_interval

    def _collect_all(self, session: Owned, paths: list[str]) -> None:
        """Write the receipts of these files, with one fsync for BATCH of them, and delete each file after that."""
        for begin in range(0, len(paths), BATCH):
            batch = paths[begin : begin + BATCH]
            try:
                self.completed.write_receipts(session.files, batch)
            except OSError as error:  # the share is full, say
                self.share.judge(error)
                for path in batch:
                    self.completed.proofs.put_off((session.name, path), self.settings.sweep_interval)
                continue
            for path in batch:
                self._attempt(session, path)

    def _attempt(self, session: Owned, path: str) -> None:
        folder, name = split(path)
        try:
            with opened(self.share.fd, join(session.name, folder)) as at, session.files.reserve(path) as mine:
                if mine and self._collected_due(session, path, self._claim(session, at, name)):
                    return
        except LargeRead:
            self._readings.add((session.name, path))
            return
        except FileNotFoundError:  # the folder was renamed, perhaps: the walk needs the proof
            self.completed.proofs.put_off((session.name, path), RECHECK)
            return
        except (FileError, OSError) as error:
            self._failed(session.files, path, error)
        self.completed.proofs.put_off((session.name, path), self.settings.sweep_interval)

    def _collected_due(self, session: Owned, path: str, claim: Claim) -> bool:
        """Sweep the file that is due, but no later file of its name. False when the sweeper has to try again."""
        key = (session.name, path)
        known = self.completed.proofs.get(key)
        if not known or self.completed.proofs.waits(key):
            return True  # a later file of this name was completed after the list of due files was made
        if inode(claim.folder, claim.completed) not in {None, known.inode}:
            self.completed.proofs.forget(key)  # another shard completed this file; the walk sees when it is due
            return True
        try:
            verdict = self._collect(session, path, claim, LARGE)
        except FileNotFoundError:
            self.completed.gone(session.files, path)
            return True
        return verdict is not None and not self.completed.proofs.unwritten(key)

    def walk_once(self, session: Owned) -> None:
        """Sweep the `.completed` files that this process did not complete: of an earlier run, or of another shard."""
        began, proven = time.monotonic(), list[str]()
        left = self._walked(session, proven)
        if proven:
            self._collect_all(session, proven)
            left = self._walked(session, []) if session.stopped else left
        if not left and session.stopped:
            self._swept(session)
        pause = max(PAUSE * (time.monotonic() - began), (1 if session.stopped else WALK) * self.settings.sweep_interval)
        self._next_walk[session.name, session.stopped] = time.monotonic() + pause

    def _walked(self, session: Owned, proven: list[str]) -> int:
        """Sweep one session's folder; return how many files are left. `proven`: those that may be deleted now."""
        left = session.files.uploading()  # an upload in progress will leave a file
        shut: Found | None = None
        try:
            oldest = self._oldest()
            with opened(self.share.fd, session.name) as top:
                for found in scan(top, Rule((), ""), everywhere=True):
                    if time.monotonic() >= self._next_due:
                        self.collect_due(time.monotonic())  # what is due does not wait for the end of a long walk
                    shut = found if found.error and session.stopped else shut
                    left += self._meet(session, found, oldest, proven)
                    if len(proven) >= BATCH:
                        self._collect_all(session, proven)
                        proven.clear()
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # a lost share is not an empty folder (I6)
            left += not isinstance(error, FileNotFoundError)
        if shut and shut.error:
            self._cannot(session, shut.error, shut.path, SHUT)
        else:
            session.files.clear_error(SHUT)
        return left

    def _meet(self, session: Owned, found: Found, oldest: int, proven: list[str]) -> bool:
        """Judge a `.completed` file whose retention is over; tell whether a file stays."""
        if found.kind is Kind.COMPLETED:
            claim = self._claim(session, found.folder, found.name.removesuffix(COMPLETED))
            return self._leftover(session, found.path, claim, oldest, proven, LARGE)
        if found.kind is Kind.PROCESSING:
            return not session.stopped or self._claimed(session, found)
        if found.error:
            self.share.judge(found.error)
        return found.error is not None

    def _claimed(self, session: Owned, found: Found) -> bool:
        """End a give-back that a stop has left half done; tell whether the claim of this stopped session stays."""
        claim = self._claim(session, found.folder, found.name.removesuffix(PROCESSING))
        try:
            claim.finish()
            if not claim.held():
                session.files.release(found.path + PROCESSING)
                return False
        except OSError as error:
            self.share.judge(error)
        session.files.keep(found.path + PROCESSING, "its claim could not be undone; the next start sends the file")
        return True

    def _oldest(self) -> int:
        """Return the ctime, in ns, before which a file must have become `.completed` for its retention to be over."""
        return self.share.server_time() - int(self.settings.retention * 1e9)

    def _leftover(
        self, session: Owned, path: str, claim: Claim, oldest: int, proven: list[str], most: int | None
    ) -> bool:
        """Judge a file whose retention is over; tell whether it stays, for now at least."""
        if self.completed.waits(session.files, path):
            return True
        try:
            now = look(claim.folder, claim.completed)
            if now.ctime_ns > oldest or self.completed.rests(session.files, path, now):
                return True
            with session.files.reserve(path) as mine:
                verdict = self._collect(session, path, claim, most) if mine else None
                if verdict is Verdict.PROVEN and self.completed.proofs.get((session.name, path)):
                    proven.append(path)
                    return True
                return verdict in {None, *KEPT}
        except FileNotFoundError:
            return self._vanished(session, path, claim)
        except LargeRead:
            self._readings.add((session.name, path))
        except (FileError, OSError) as error:
            self._failed(session.files, path, error)
        return True

    def _vanished(self, session: Owned, path: str, claim: Claim) -> bool:
        """Forget a file that is no longer there; tell whether a worker has its path, who may complete the next one."""
        with session.files.reserve(path) as mine:
            if mine and inode(claim.folder, claim.completed) is None:
                self.completed.gone(session.files, path)
            return not mine

    def _read_leftover(self, session: Owned, path: str) -> None:
        """Judge a large file by its content. It is deleted, due at once for its receipt, kept, or sent again."""
        folder, name = split(path)
        try:
            with opened(self.share.fd, join(session.name, folder)) as at:
                self._leftover(session, path, self._claim(session, at, name), self._oldest(), [], most=None)
        except FileNotFoundError:
            pass  # its folder has another name: the next walk finds it there
        except OSError as error:
            self._failed(session.files, path, error)

    def _collect(self, session: Owned, path: str, claim: Claim, most: int | None) -> Verdict | None:
        """Act on the file's verdict and return it; None when that has to wait. The caller has reserved the path.

        Raises OSError, FileError; LargeRead of a file that has to be read and has more than `most` bytes.
        """
        if self.sessions.owned().get(session.name) != session:
            return None  # the session was started again: the next walk sees that
        seen = self.completed.judge(session.files, path, claim, most)
        if seen.verdict is Verdict.PROVEN and not self.completed.proofs.receipted((session.name, path)):
            return seen.verdict  # it stays until its receipt is on the share
        if seen.verdict is Verdict.PROVEN:
            self.completed.delete(session.files, path, claim)
        elif seen.verdict in KEPT:
            self.completed.keep(session.files, path, seen)
        elif not self._taken_back(session, path, claim, seen):
            return None
        return seen.verdict

    def _taken_back(self, session: Owned, path: str, claim: Claim, seen: Seen) -> bool:
        """Let a session send a file that was still being written; False when that has to wait.

        It does not stop meanwhile. The record of a stopped one is written first: no shard would send a renamed file of
        a session that is stopped.
        """
        with ExitStack() as stack:
            try:
                files = stack.enter_context(self.sessions.reopen(session.name))
            except OSError as error:
                self._cannot(session, error, path + COMPLETED)
                return False
            if files is None or (files is not session.files and not stack.enter_context(files.reserve(path))):
                return False
            self.completed.send_again(files, path, claim, seen, counted=files is session.files)
            session.files.clear_error(SWEEP)
            return True

    def _claim(self, session: Owned, folder: int, name: str) -> Claim:
        return Claim(folder, name, Mark(self.share, session.name).set)

    def _swept(self, session: Owned) -> None:
        """End the session, whose receipts go into the store first; when that fails, the next walk tries again.

        Another process may have completed a file meanwhile: so the folder is walked once more.
        """
        try:
            sealed = self.completed.seal(session.session)
            if self._walked(session, []):
                return
            self.sessions.swept(session.name, sealed)
            session.files.clear_error(RECEIPTS)
            session.files.clear_error(SWEEP)
        except OSError as error:
            self._cannot(session, error)
        except StoreError as error:
            if session.files.note_error(text := f"the receipts are not in the store yet: {error}", RECEIPTS):
                log.warning(names.RECEIPTS_FAILED, extra={"session": session.name, "error": text})

    def _cannot(self, session: Owned, error: OSError, path: str | None = None, part: str = SWEEP) -> None:
        """Show why the session cannot be swept; `path`: of what keeps it."""
        self.share.judge(error)
        if session.files.note_error(text := f"the session cannot be swept: {error}", part, path):
            extra = {"session": session.name, "error": text, "path": path and shown(path)}
            log.warning(names.RECONCILE_FAILED, extra=extra)

    def _failed(self, files: Inventory, path: str, error: Exception) -> None:
        """Show why a file cannot be deleted, unless the store is away: the sweeper asks it again soon."""
        if isinstance(error, OSError):
            self.share.judge(error)
        text = f"the file cannot be deleted: {error}"
        if not isinstance(error, StoreAway) and files.keep(path + COMPLETED, text):
            extra = {"session": files.session, "path": shown(path) + COMPLETED, "error": text}
            log.warning(names.FILE_FAILED, extra=extra)

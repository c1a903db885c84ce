"""The sweeper: walks the sessions of this shard, and deletes `.completed` files whose time has come.

It asks the sessions for all it has to know (`Sessions`); no field of it is set from outside.
"""

import logging
import time
from math import inf
from typing import Protocol

from uploader.errors import StoreError
from uploader.naming import COMPLETED, PROCESSING
from uploader.settings import Settings
from uploader.share.mount import Share
from uploader.share.paths import opened
from uploader.share.scan import Found, Kind, Rule, scan
from uploader.sweep.completed import RECEIPTS, Completed
from uploader.sweep.deletion import BATCH, SWEEP, Deletion
from uploader.sweep.owned import Owned, Sessions
from uploader.telemetry import names
from uploader.thread import spawn

log = logging.getLogger(__name__)
WALK = 12  # sweeps between two walks for files that this process did not complete
SHUT = "shut folder"  # the part of a session's work that an error is of
PAUSE = 3  # the next walk waits at least this many times the duration of the last


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
        self.deletion = Deletion(settings, share, completed, sessions)
        self._next_walk: dict[tuple[str, bool], float] = {}  # by session name, and whether the session had stopped
        self._next_due = inf  # set by each look for what is due

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
            self.deletion.read_next()

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
                self.deletion.collect(owned, paths)
                continue
            for path in paths:
                self.completed.proofs.forget((session, path))  # another shard owns the session now
        self._next_due = time.monotonic() + self.settings.sweep_interval

    def walk_once(self, session: Owned) -> None:
        """Sweep the `.completed` files that this process did not complete: of an earlier run, or of another shard."""
        began, proven = time.monotonic(), list[str]()
        left = self._walked(session, proven)
        if proven:
            self.deletion.collect(session, proven)
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
            oldest = self.deletion.oldest()
            with opened(self.share.fd, session.name) as top:
                for found in scan(top, Rule((), ""), everywhere=True):
                    if time.monotonic() >= self._next_due:
                        self.collect_due(time.monotonic())  # what is due does not wait for the end of a long walk
                    shut = found if found.error and session.stopped else shut
                    left += self._meet(session, found, oldest, proven)
                    if len(proven) >= BATCH:
                        self.deletion.collect(session, proven)
                        proven.clear()
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # a lost share is not an empty folder (I6)
            left += not isinstance(error, FileNotFoundError)
        if shut and shut.error:
            self.deletion.cannot(session, shut.error, shut.path, SHUT)
        else:
            session.files.clear_error(SHUT)
        return left

    def _meet(self, session: Owned, found: Found, oldest: int, proven: list[str]) -> bool:
        """Judge a `.completed` file whose retention is over; tell whether a file stays."""
        if found.kind is Kind.COMPLETED:
            claim = self.deletion.claim(session, found.folder, found.name.removesuffix(COMPLETED))
            return self.deletion.leftover(session, found.path, claim, oldest, proven)
        if found.kind is Kind.PROCESSING:
            return not session.stopped or self._claimed(session, found)
        if found.error:
            self.share.judge(found.error)
        return found.error is not None

    def _claimed(self, session: Owned, found: Found) -> bool:
        """End a give-back that a stop has left half done; tell whether the claim of this stopped session stays."""
        claim = self.deletion.claim(session, found.folder, found.name.removesuffix(PROCESSING))
        try:
            claim.finish()
            if not claim.held():
                session.files.release(found.path + PROCESSING)
                return False
        except OSError as error:
            self.share.judge(error)
        session.files.keep(found.path + PROCESSING, "its claim could not be undone; the next start sends the file")
        return True

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
            self.deletion.cannot(session, error)
        except StoreError as error:
            if session.files.note_error(text := f"the receipts are not in the store yet: {error}", RECEIPTS):
                log.warning(names.RECEIPTS_FAILED, extra={"session": session.name, "error": text})

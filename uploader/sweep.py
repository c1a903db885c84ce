"""The collector: deletes `.completed` files, and nothing that is not proven to be in the store (I1)."""

import logging
import os
import time
from collections.abc import Callable

from uploader import names, telemetry
from uploader.claim import Claim, move
from uploader.errors import FileError, InTheWay, StoreError
from uploader.files import Files
from uploader.folder import COMPLETED, PROCESSING, join, opened, shown, split
from uploader.look import Look, inode, look
from uploader.proofs import MAX_PROOFS, Key, Proofs
from uploader.scan import Kind, Rule, scan
from uploader.settings import Settings
from uploader.share import Share
from uploader.stage import Staging
from uploader.stored import BlobStore
from uploader.thread import spawn
from uploader.verdict import Verdict, judge

log = logging.getLogger(__name__)
WALK = 12  # sweeps between two walks that look for what this process did not complete itself
PAUSE = 3  # the next walk is no sooner than this many times the last one's duration
RECHECK = 300.0  # seconds until something unproven is compared again


class Sweeper:
    """Collects for the sessions that this shard owns, stopped ones too."""

    def __init__(self, settings: Settings, share: Share, store: BlobStore, staging: Staging | None) -> None:
        self.settings = settings
        self.share = share
        self.store = store
        self.staging = staging
        self.sessions: dict[str, Files] = {}
        self.stopped: set[str] = set()
        self.clean: Callable[[str], None] = lambda _: None  # told of a stopped session with nothing left
        self.changed: Callable[[str], None] = lambda _: None  # and of one with a file that has to be sent again
        self.proofs = Proofs()
        self._unproven: dict[Key, tuple[Look, float]] = {}  # and when it is compared again
        self._next_walk: dict[tuple[str, bool], float] = {}  # by session, and whether it had stopped

    def start(self) -> None:
        """Begin."""
        spawn("sweeper", self._run)

    def remember(self, files: Files, path: str, committed: Look) -> None:
        """Take note that this process saw the store confirm this file."""
        self.proofs.add((files.session, path), committed, self.settings.retention)

    def clear(self, files: Files, path: str, claim: Claim) -> bool:
        """Make room for a new file of this name, which is there: nothing may overwrite an unproven `.completed` (I4).

        Afterwards it is gone, or it was not finished and has become `.processing`; then it returns True.
        Raises InTheWay.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        verdict = self._collect(files, path, claim)
        if verdict is Verdict.UNPROVEN:
            raise InTheWay(f"{claim.completed} stands in the way and its content is not in the store")
        return claim.held()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            for session, path in self.proofs.due(began):
                if files := self.sessions.get(session):
                    self._attempt(files, path)
                else:
                    self.proofs.forget((session, path))  # another shard's now
            self._next_walk = {key: when for key, when in self._next_walk.items() if key[0] in self.sessions}
            for session, files in list(self.sessions.items()):
                if time.monotonic() >= self._next_walk.get((session, session in self.stopped), 0.0):
                    self._walk(session, files)
            if self.staging:
                self.staging.sweep()
            time.sleep(self.settings.sweep_interval)

    def _attempt(self, files: Files, path: str) -> None:
        folder, name = split(path)
        try:
            with opened(self.share.fd, join(files.session, folder)) as at, files.alone(path) as alone:
                if alone:
                    self._collect_due(files, path, Claim(at, name))
                    return
        except FileNotFoundError:
            self._gone(files, path)
        except (FileError, OSError) as error:
            self._failed(files, path, error)
        self.proofs.put_off((files.session, path), self.settings.sweep_interval)

    def _collect_due(self, files: Files, path: str, claim: Claim) -> None:
        """Collect the file that is due, and not the next of its name, whose own retention has only begun."""
        key = (files.session, path)
        known = self.proofs.get(key)
        if not known or self.proofs.waits(key):
            return  # it was completed anew since the list of what is due was made
        if inode(claim.folder, claim.completed) in {None, known.inode}:
            self._collect(files, path, claim)
        else:
            self.proofs.forget(key)  # another shard completed it; the walk knows when it is due

    def _gone(self, files: Files, path: str) -> None:
        self.proofs.forget((files.session, path))
        self._unproven.pop((files.session, path), None)
        files.kept.pop(path + COMPLETED, None)

    def _failed(self, files: Files, path: str, error: Exception) -> None:
        """Show what keeps a file from being deleted; a store that is away passes by itself."""
        if isinstance(error, OSError):
            self.share.judge(error)
        text = f"it cannot be deleted: {error}"
        if isinstance(error, StoreError) or files.kept.get(path + COMPLETED) == text or len(files.kept) > MAX_PROOFS:
            return
        files.kept[path + COMPLETED] = text
        log.warning(names.FILE_FAILED, extra={"session": files.session, "path": shown(path) + COMPLETED, "error": text})

    def _walk(self, session: str, files: Files) -> None:
        """Look for `.completed` files that this process did not complete: from before a restart, or another shard's."""
        began = time.monotonic()
        left = len(files.busy)  # what is under way will leave something
        try:
            oldest = self.share.server_time() - int(self.settings.retention * 1e9)
            with opened(self.share.fd, session) as top:
                for found in scan(top, Rule((), "")):
                    if found.kind is Kind.COMPLETED:
                        left += self._meet(
                            files, found.path, Claim(found.folder, found.name.removesuffix(COMPLETED)), oldest
                        )
                    elif found.kind is Kind.PROCESSING:
                        left += 1
                        if session in self.stopped:
                            files.kept[found.path + PROCESSING] = "it could not be given back; the next start sends it"
                    elif found.error:
                        self.share.judge(found.error)
                        left += 1
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # gone is not empty (I6)
            left += 0 if isinstance(error, FileNotFoundError) else 1
        if (stopped := session in self.stopped) and not left:
            self._tell(self.clean, session)
        took = time.monotonic() - began
        pause = max(PAUSE * took, (1 if stopped else WALK) * self.settings.sweep_interval)
        self._next_walk[session, stopped] = time.monotonic() + pause

    def _tell(self, told: Callable[[str], None], session: str) -> None:
        """Have a record changed; where that fails, the next walk tries again."""
        try:
            told(session)
        except OSError as error:
            self.share.judge(error)
            log.warning(names.RECONCILE_FAILED, extra={"session": session, "error": str(error)})

    def _meet(self, files: Files, path: str, claim: Claim, oldest: int) -> int:
        """Collect one leftover; return 1 when it is still there."""
        if self.proofs.waits((files.session, path)):
            return 1  # its time will come
        try:
            current = look(claim.folder, claim.completed)
            if current.ctime_ns > oldest:
                return 1
            known = self._unproven.get((files.session, path))
            if known and known[0].same(current) and known[1] > time.monotonic():
                return 1
            with files.alone(path) as alone:
                return int(not alone or self._collect(files, path, claim) is Verdict.UNPROVEN)
        except FileNotFoundError:
            self._gone(files, path)
            return 0
        except (FileError, OSError) as error:
            self._failed(files, path, error)
            return 1

    def _collect(self, files: Files, path: str, claim: Claim) -> Verdict:
        """Delete the file, or put it back to be sent again, or keep it. Raises OSError, FileError."""
        key = (files.session, path)
        parent = f"{self.settings.blob_prefix}{files.session}/"
        blob = None if Rule((), parent).objection(path) else parent + path  # nobody can have sent such a name
        verdict, current = judge(claim, self.proofs.get(key), self.store, blob)
        if verdict is Verdict.PROVEN and not look(claim.folder, claim.completed, thaw=True).same(current):
            verdict = Verdict.CHANGED
        if verdict is Verdict.PROVEN:
            os.unlink(claim.completed, dir_fd=claim.folder)
            telemetry.FILES_DELETED.add(1)
            log.info(names.FILE_DELETED, extra={"session": files.session, "path": shown(path)})
        elif verdict is Verdict.CHANGED:
            self._send_again(files, path, claim, current)
        else:
            self._keep(files, path, current)
            return verdict
        self._gone(files, path)
        return verdict

    def _send_again(self, files: Files, path: str, claim: Claim, current: Look) -> None:
        """Put a file that was still being written back to its plain name, or finish it before a newer one there."""
        files.given_back(path, current, self.settings.settle)
        try:
            move(claim.folder, claim.completed, claim.name)
        except (InTheWay, PermissionError):
            claim.reopen()
        log.warning(names.FILE_CHANGED, extra={"session": files.session, "path": shown(path)})
        if files.session in self.stopped:
            self._tell(self.changed, files.session)

    def _keep(self, files: Files, path: str, current: Look) -> None:
        key = (files.session, path)
        self.proofs.forget(key)  # what was proven is another file
        if key not in self._unproven:
            log.error(names.FILE_UNPROVEN, extra={"session": files.session, "path": shown(path) + COMPLETED})
        if key in self._unproven or len(self._unproven) < MAX_PROOFS:
            self._unproven[key] = (current, time.monotonic() + RECHECK)
            files.kept[path + COMPLETED] = "its content is not in the store; it is kept"

"""The deletion of `.completed` files whose time has come: receipts first, then each file by its verdict.

Most are deleted without being read. What has to be read is read at once where it is small, and by a thread of its own
where it is large, one after the other: the others do not wait for it.
"""

import logging
from contextlib import ExitStack

from uploader.backlog.inventory import Inventory
from uploader.errors import FileError, LargeRead, StoreAway
from uploader.naming import COMPLETED
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import inode, look
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.paths import join, opened, split
from uploader.sweep.completed import RECHECK, Completed, Seen
from uploader.sweep.owned import Owned, Sessions
from uploader.sweep.readings import Readings
from uploader.sweep.verdict import KEPT, Verdict
from uploader.telemetry import names
from uploader.telemetry.text import shown

log = logging.getLogger(__name__)
BATCH = 10_000  # files whose receipts are written at once
SWEEP = "sweep"  # the part of a session's work that an error is of
LARGE = 16 * 2**20  # bytes; a file of more is not read while others wait: on a share of 100 MB/s this takes 0.2 s


class Deletion:
    """Deletes files of all sessions, or sends them again, or keeps them."""

    def __init__(self, settings: Settings, share: Share, completed: Completed, sessions: Sessions) -> None:
        self.settings = settings
        self.share = share
        self.completed = completed
        self.sessions = sessions
        self._readings = Readings()

    def collect(self, session: Owned, paths: list[str]) -> None:
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
                if mine and self._collected_due(session, path, self.claim(session, at, name)):
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

    def leftover(self, session: Owned, path: str, claim: Claim, oldest: int, proven: list[str]) -> bool:
        """Judge a file that this process need not have completed; tell whether it stays, for now at least.

        `oldest`: as `oldest` gave it; `proven` gets the path of a file that may be deleted after its receipt.
        """
        return self._leftover(session, path, claim, oldest, proven, LARGE)

    def _leftover(
        self, session: Owned, path: str, claim: Claim, oldest: int, proven: list[str], most: int | None
    ) -> bool:
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

    def read_next(self) -> None:
        """Wait for a large file that has to be read, read it, and act on its verdict."""
        name, path = self._readings.next()
        if session := self.sessions.owned().get(name):
            self._read_leftover(session, path)

    def _read_leftover(self, session: Owned, path: str) -> None:
        """Judge a large file by its content. It is deleted, due at once for its receipt, kept, or sent again."""
        folder, name = split(path)
        try:
            with opened(self.share.fd, join(session.name, folder)) as at:
                self._leftover(session, path, self.claim(session, at, name), self.oldest(), [], most=None)
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
                self.cannot(session, error, path + COMPLETED)
                return False
            if files is None or (files is not session.files and not stack.enter_context(files.reserve(path))):
                return False
            self.completed.send_again(files, path, claim, seen, counted=files is session.files)
            session.files.clear_error(SWEEP)
            return True

    def oldest(self) -> int:
        """Return the ctime, in ns, before which a file must have become `.completed` for its retention to be over."""
        return self.share.server_time() - int(self.settings.retention * 1e9)

    def claim(self, session: Owned, folder: int, name: str) -> Claim:
        """Return the claim of a file, by its plain name."""
        return Claim(folder, name, Mark(self.share, session.name).set)

    def cannot(self, session: Owned, error: OSError, path: str | None = None, part: str = SWEEP) -> None:
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

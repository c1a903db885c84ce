"""What happens to a `.completed` file.

A file proven to be in the store is deleted (I1), a file that was still being written is sent again, any other is kept.
"""

import logging
import os
import threading
import time

from uploader.backlog.inventory import Inventory
from uploader.blob.store import BlobStore
from uploader.errors import HeldOpen, InTheWay, Unsettled
from uploader.naming import COMPLETED
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.filesystem import FileSystem
from uploader.share.fingerprint import Fingerprint, inode
from uploader.share.handle import Handle
from uploader.share.scan import Rule
from uploader.sweep.proofs import MAX_PROOFS, Key, Proof, Proofs
from uploader.sweep.verdict import KEPT, Verdict, judge
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown

log = logging.getLogger(__name__)
RECHECK = 300.0  # seconds until an unproven file is compared with the store again
MAX_UNPROVEN = MAX_PROOFS


class Unproven:
    """The files not proven to be in the store, MAX_UNPROVEN at most, and when to compare each again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[Fingerprint, float]] = {}

    def add(self, key: Key, current: Fingerprint) -> tuple[bool, bool]:
        """Remember a file; return whether it was unknown, and whether there was room to remember it."""
        with self._lock:
            new = key not in self._known
            if remembered := not new or len(self._known) < MAX_UNPROVEN:
                self._known[key] = (current, time.monotonic() + RECHECK)
            return new, remembered

    def rests(self, key: Key, current: Fingerprint) -> bool:
        """Tell whether the same content was compared less than RECHECK seconds ago."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[0] == current and known[1] > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a file that is gone."""
        with self._lock:
            self._known.pop(key, None)


class Completed:
    """The `.completed` files of all sessions: workers make them and clear them away, the sweeper deletes them.

    The caller alone has the path: a worker through its item, the sweeper through a reservation.
    """

    def __init__(self, settings: Settings, tells: FileSystem, store: BlobStore) -> None:
        """`tells`: what can be known of a file on the share."""
        self.settings = settings
        self.tells = tells
        self.store = store
        self.proofs = Proofs()
        self._unproven = Unproven()

    def remember(self, files: Inventory, path: str, proof: Proof) -> None:
        """Take note that this process saw the store confirm this file."""
        self.proofs.add((files.session, path), proof, self.settings.retention)

    def clear(self, files: Inventory, path: str, claim: Claim) -> bool:
        """Make room for the next file of this name: an unproven `.completed` is never overwritten (I4).

        A proven file is deleted. A file that was still being written becomes `.processing`, then returns True.
        Raises InTheWay, OSError, FileError.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        try:
            verdict, current = self.judge(files, path, claim)
        except HeldOpen as reason:
            raise InTheWay(f"{claim.completed} stands in the way and is {reason}") from None
        if why := KEPT.get(verdict):
            self.keep(files, path, current, why)
            raise InTheWay(f"{claim.completed} is in the way and cannot be proven to be in the store: {why}")
        if verdict is Verdict.PROVEN:
            self.delete(files, path, claim)
        else:
            self.send_again(files, path, claim, current)
        return claim.held()

    def waits(self, files: Inventory, path: str) -> bool:
        """Tell whether this process completed the file and its retention is not over."""
        return self.proofs.waits((files.session, path))

    def rests(self, files: Inventory, path: str, current: Fingerprint) -> bool:
        """Tell whether this content was found unproven less than RECHECK seconds ago."""
        return self._unproven.rests((files.session, path), current)

    def judge(self, files: Inventory, path: str, claim: Claim) -> tuple[Verdict, Fingerprint]:
        """Say what the file is, by the last look before it could be deleted.

        Raises HeldOpen of a file that the store has and that somebody can write to; OSError, FileError.
        """
        parent = f"{self.settings.blob_prefix}{files.session}/"
        blob = None if Rule((), parent).objection(path) else parent + path  # nobody can have sent such a name
        with Handle(claim.folder, claim.completed, self.tells) as file:
            proof = self.proofs.get((files.session, path))
            if proof is None or not proof.of(file):
                proof = self.proofs.moved((files.session, path), file.now.inode) or proof
            verdict = judge(file, proof, self.store, blob)
            try:
                if verdict is Verdict.PROVEN:
                    file.last_look(claim.folder, claim.completed)
            except HeldOpen:
                raise
            except Unsettled:
                verdict = Verdict.CHANGED
            if verdict in KEPT and claim.half_undone():
                verdict = Verdict.CHANGED  # it was on its way back when a process died, or a call failed
            return verdict, file.now

    def delete(self, files: Inventory, path: str, claim: Claim) -> None:
        """Delete a proven file. Raises OSError."""
        os.unlink(claim.completed, dir_fd=claim.folder)
        self.gone(files, path)
        instruments.FILES_DELETED.add(1)
        log.info(names.FILE_DELETED, extra={"session": files.session, "path": shown(path)})

    def send_again(self, files: Inventory, path: str, claim: Claim, current: Fingerprint) -> None:
        """Give a file that was still being written its plain name back, or `.processing` where that name is taken.

        `files`: the inventory of the session that sends the file. Raises OSError, InTheWay.
        """
        files.given_back(path, current, self.settings.settle)
        claim.take_back()
        self.gone(files, path)
        log.warning(names.FILE_CHANGED, extra={"session": files.session, "path": shown(path)})

    def keep(self, files: Inventory, path: str, current: Fingerprint, why: str) -> None:
        """Keep an unproven file, log it once, and show it in the status."""
        key = (files.session, path)
        self.proofs.forget(key)  # the proof is of another file
        new, remembered = self._unproven.add(key, current)
        if new:
            log.error(names.FILE_UNPROVEN, extra={"session": files.session, "path": shown(path) + COMPLETED})
        if remembered:
            files.keep(path + COMPLETED, f"kept: it cannot be proven to be in the store: {why}")

    def gone(self, files: Inventory, path: str) -> None:
        """Forget a file that is no longer there."""
        self.proofs.forget((files.session, path))
        self._unproven.forget((files.session, path))
        files.release(path + COMPLETED)

"""What happens to a `.completed` file.

A file proven to be in the store is deleted (I1), a file that was still being written is sent again, any other is kept.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable

from uploader.backlog.inventory import Inventory
from uploader.blob.store import BlobStore, Committed, Label, Stored
from uploader.errors import HeldOpen, InTheWay, Unsettled
from uploader.naming import COMPLETED
from uploader.session import Session, now
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import Fingerprint, inode
from uploader.share.handle import Handle
from uploader.share.mount import Share
from uploader.share.scan import Rule
from uploader.sweep.origins import Origins
from uploader.sweep.proofs import MAX_PROOFS, Key, Proof, Proofs
from uploader.sweep.receipts import Receipts, receipt, taken_back
from uploader.sweep.seal import Sealed, seal
from uploader.sweep.verdict import KEPT, Judged, Verdict, judge, judge_moved
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown

log = logging.getLogger(__name__)
RECHECK = 300.0  # seconds until an unproven file is compared with the store again
MAX_UNPROVEN = MAX_PROOFS
RECEIPTS = "receipts"  # the part of a session's work that an error is of


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

    def __init__(self, settings: Settings, share: Share, store: BlobStore) -> None:
        self.settings = settings
        self.tells = share.tells
        self.store = store
        self.receipts = Receipts(share, settings.ordinal)
        self.proofs = Proofs()
        self._unproven = Unproven()
        self._origins = Origins(store)

    def remember(self, files: Inventory, path: str, proof: Proof, wait: float | None = None) -> None:
        """Take note that this process saw the store confirm this file; `wait`: seconds that it is kept."""
        self.proofs.add((files.session, path), proof, self.settings.retention if wait is None else wait)

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
        if verdict in KEPT:
            why = self.keep(files, path, current, verdict)
            raise InTheWay(f"{claim.completed} is in the way and cannot be proven to be in the store: {why}")
        if verdict is Verdict.PROVEN:
            self.write_receipts(files, [path])
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
        parent = self._parent(files)
        blob = None if Rule((), parent).objection(path) else parent + path  # nobody can have sent such a name
        with Handle(claim.folder, claim.completed, self.tells) as file:
            at = (files.session, path)
            proof = self.proofs.get(at)
            if proof is None or not proof.of(file):
                proof = self.proofs.moved(at, file) or proof
            said = judge(file, proof, self.store, blob)
            if said.verdict in KEPT:
                said = judge_moved(file, self._origins.of(parent, file), self.store) or said
            verdict = said.verdict
            if said.emptied and self.receipts.has(
                files.session, path, file.now.inode, said.emptied.metadata.get("mtime", "")
            ):
                verdict = Verdict.OTHER  # that file was deleted: this is another one
            try:
                if verdict is Verdict.PROVEN:
                    file.last_look(claim.folder, claim.completed)
            except HeldOpen:
                raise
            except Unsettled:
                verdict = Verdict.CHANGED
            if verdict in KEPT and claim.half_undone():
                verdict = Verdict.CHANGED  # it was on its way back when a process died, or a call failed
            if verdict is Verdict.PROVEN and said.blob:
                sent_as = said.name.removeprefix(parent) if said.name else path
                self._prove(files, path, sent_as, file, said, said.blob)
            return verdict, file.now

    def _prove(self, files: Inventory, path: str, sent_as: str, file: Handle, said: Judged, stored: Stored) -> None:
        """Remember what the store has of a file that this process has not sent, and that it was counted.

        Its receipt has the path under which it was sent.
        """
        mtime, kind = file.now.mtime_ns, ""
        label = Label(stored.size, said.crc64, stored.md5, file.now.inode, file.born(), mtime, files.session, kind)
        before = stored.replaced if stored.of(label) else None
        done = Committed(label, stored.etag, stored.modified or now(), before)
        files.count_earlier(path, stored.size)
        proof = self.proof(files, sent_as, file, done, None, certain=not file.now.coarse)
        self.remember(files, path, proof, wait=0)

    def proof(
        self, files: Inventory, path: str, file: Handle, done: Committed, attempts: int | None, *, certain: bool
    ) -> Proof:
        """Return what is to be remembered of a file that the store has; `attempts` None: not known."""
        session, shard = files.session, self.settings.ordinal
        blob = self._parent(files) + path
        line = receipt(session, path, blob, file.now, done, shard=shard, attempts=attempts)
        replaced, seen = done.replaced is not None, attempts is not None
        return Proof(file.now, file.born(), done.label.crc64, certain, line, replaced=replaced, seen=seen)

    def write_receipts(self, files: Inventory, paths: Iterable[str]) -> None:
        """Have the receipts of these proven files on the share's disk: before that none of them is deleted (I11).

        Raises OSError; the status of the session shows why.
        """
        found = [((files.session, path), self.proofs.unwritten((files.session, path))) for path in paths]
        new = [(at, proof) for at, proof in found if proof]
        try:
            if new:
                self.receipts.write(files.session, [proof.receipt for _, proof in new])
        except OSError as error:
            text = f"nothing is deleted, because receipts cannot be written: {error.strerror}"
            if files.note_error(text, RECEIPTS):
                log.error(names.RECEIPTS_FAILED, extra={"session": files.session, "error": text})  # noqa: TRY400 no fault of the program
            raise
        files.clear_error(RECEIPTS)
        files.count_replaced(sum(proof.replaced and not proof.seen for _, proof in new))
        self.proofs.written(new)

    def know_receipts(self, files: Inventory, paths: Iterable[str]) -> None:
        """Find out which of these proven files got a receipt from a process that died before it deleted them.

        Raises OSError.
        """
        found = [((files.session, path), self.proofs.unwritten((files.session, path))) for path in paths]
        new = {proof.sent_as: (at, proof) for at, proof in found if proof}
        there = [new[path] for path in self.receipts.among(files.session, {p: one[1].file for p, one in new.items()})]
        for (_, path), _ in there:
            files.uncount(path, None)  # the count of receipts has it
        self.proofs.written(there)

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
        at = (files.session, path)
        proof = self.proofs.get(at)
        receipted = self.proofs.receipted(at)
        if proof and receipted:  # before the rename: a receipt of what stays would count it twice
            self.receipts.write(files.session, [taken_back(proof.receipt)])
        files.given_back(path, current, self.settings.settle)
        claim.take_back()
        files.uncount(path, proof.file.size if proof else None)
        files.count_replaced(-1 if proof and proof.replaced and (proof.seen or receipted) else 0)
        self.gone(files, path)
        log.warning(names.FILE_CHANGED, extra={"session": files.session, "path": shown(path)})

    def seal(self, session: Session) -> Sealed:
        """Put the receipts of a session that has been swept into the store. Raises OSError, StoreError."""
        return seal(self.receipts, session, self.settings.blob_prefix, self.store)

    def keep(self, files: Inventory, path: str, current: Fingerprint, verdict: Verdict) -> str:
        """Keep an unproven file, log it once, and show it in the status; return why."""
        at, why = (files.session, path), KEPT[verdict].format(elsewhere=self._origins.none(self._parent(files)))
        self.proofs.forget(at)  # the proof is of another file
        new, remembered = self._unproven.add(at, current)
        if new and remembered:
            log.error(names.FILE_UNPROVEN, extra={"session": files.session, "path": shown(path) + COMPLETED})
        if remembered:
            files.keep(path + COMPLETED, f"kept: it cannot be proven to be in the store: {why}")
        files.uncount(path, None)
        return why

    def _parent(self, files: Inventory) -> str:
        return f"{self.settings.blob_prefix}{files.session}/"

    def gone(self, files: Inventory, path: str) -> None:
        """Forget a file that is no longer there."""
        self.proofs.forget((files.session, path))
        self._unproven.forget((files.session, path))
        files.release(path + COMPLETED)
        files.forget_earlier(path)

"""What happens to a `.completed` file.

A file proven to be in the store is deleted (I1), a file that was still being written is sent again, any other is kept.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from uploader.backlog.inventory import Inventory
from uploader.blob.store import BlobStore, Committed, Label, Stored, rfc3339
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
from uploader.sweep.receipts import Receipts, Written, receipt, taken_back
from uploader.sweep.seal import Sealed, seal
from uploader.sweep.verdict import KEPT, Judged, Verdict, judge, judge_moved
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown

log = logging.getLogger(__name__)
RECHECK = 300.0  # seconds until an unproven file is compared with the store again
MAX_UNPROVEN = MAX_PROOFS
RECEIPTS = "receipts"  # the part of a session's work that an error is of


class Seen(NamedTuple):
    """What a look at a `.completed` file has shown. `untrue`: its receipts, where it is not to be deleted."""

    verdict: Verdict
    now: Fingerprint
    untrue: list[Written]


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
        self._writing = threading.Lock()
        self._origins = Origins(store)

    def remember(self, files: Inventory, path: str, proof: Proof, wait: float | None = None) -> None:
        """Take note that this process saw the store confirm this file; `wait`: seconds that it is kept.

        What is dropped from memory for it has its receipt first: so it counts once, whoever is asked about it again.
        """
        if self.proofs.leaving():
            with self._writing, suppress(OSError):  # the sweeper meets the same error, and shows it
                for session, oldest in self.proofs.leaving().items():
                    self.receipts.write(session, [proof.receipt for _, proof in oldest])
                    self.proofs.written(oldest)
        self.proofs.add((files.session, path), proof, self.settings.retention if wait is None else wait)

    def clear(self, files: Inventory, path: str, claim: Claim) -> bool:
        """Make room for the next file of this name: an unproven `.completed` is never overwritten (I4).

        A proven file is deleted. A file that was still being written becomes `.processing`, then returns True.
        Raises InTheWay, OSError, FileError.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        try:
            seen = self.judge(files, path, claim)
        except HeldOpen as reason:
            raise InTheWay(f"{claim.completed} stands in the way and is {reason}") from None
        if seen.verdict in KEPT:
            why = self.keep(files, path, seen)
            raise InTheWay(f"{claim.completed} is in the way and cannot be proven to be in the store: {why}")
        if seen.verdict is Verdict.PROVEN:
            self.write_receipts(files, [path])
            if not self.proofs.receipted((files.session, path)):
                raise InTheWay(f"{claim.completed} stands in the way, and has no receipt yet")
            self.delete(files, path, claim)
        else:
            self.send_again(files, path, claim, seen)
        return claim.held()

    def waits(self, files: Inventory, path: str) -> bool:
        """Tell whether this process completed the file and its retention is not over."""
        return self.proofs.waits((files.session, path))

    def rests(self, files: Inventory, path: str, current: Fingerprint) -> bool:
        """Tell whether this content was found unproven less than RECHECK seconds ago."""
        return self._unproven.rests((files.session, path), current)

    def judge(self, files: Inventory, path: str, claim: Claim, most: int | None = None) -> Seen:
        """Say what the file is, by the last look before it could be deleted.

        Raises HeldOpen of a file that the store has and that somebody can write to; LargeRead of one that would have to
        be read and has more than `most` bytes; OSError, FileError.
        """
        parent = self._parent(files)
        blob = None if Rule((), parent).objection(path) else parent + path  # nobody can have sent such a name
        with Handle(claim.folder, claim.completed, self.tells, most) as file:
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
            sent_as = said.name.removeprefix(parent) if said.name else path
            if verdict is not Verdict.PROVEN:
                return Seen(verdict, file.now, self._untrue(files, path, sent_as, verdict, file.now, said.blob))
            if said.blob:
                self._prove(files, path, sent_as, file, said, said.blob)
            return Seen(verdict, file.now, [])

    def _untrue(
        self, files: Inventory, path: str, sent_as: str, verdict: Verdict, now: Fingerprint, blob: Stored | None
    ) -> list[Written]:
        """Return the receipts of a file that is not to be deleted, whoever wrote them before it died. Raises OSError.

        They name the blob that was made of it: a file that had its inode and was deleted has another. What is kept has
        no blob: there the time tells. The journals are not read where it is known that there are none.
        """
        at, known = (files.session, path), files.has_receipt(path)
        proof = None if blob else self.proofs.get(at)
        if verdict in KEPT:
            wanted = ("mtime", rfc3339(now.mtime_ns)) if known else None
        elif proof:
            sent_as = proof.sent_as
            wanted = ("etag", proof.etag) if self.proofs.receipted(at) or not proof.seen else None
        else:
            wanted = ("etag", blob.etag) if blob and (known is not False or sent_as != path) else None
        if wanted is None:
            return []
        name, value = wanted
        about = self.receipts.about(files.session, {(shown(sent_as), now.inode)})
        return [(line, one) for line, one in about if one.get(name) == value]

    def _prove(self, files: Inventory, path: str, sent_as: str, file: Handle, said: Judged, stored: Stored) -> None:
        """Remember what the store has of a file that this process has not sent.

        Its receipt has the path under which it was sent.
        """
        mtime, kind = file.now.mtime_ns, ""
        label = Label(stored.size, said.crc64, stored.md5, file.now.inode, file.born(), mtime, files.session, kind)
        before = stored.replaced if stored.of(label) else None
        done = Committed(label, stored.etag, stored.modified or now(), before)
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
        with self._writing:  # a worker and the sweeper may come with the same file
            found = [((files.session, path), self.proofs.unwritten((files.session, path))) for path in paths]
            try:
                new = self._without_receipt(files, [(at, proof) for at, proof in found if proof])
                if new:
                    self.receipts.write(files.session, [proof.receipt for _, proof in new])
            except OSError as error:
                text = f"nothing is deleted, because receipts cannot be read or written: {error.strerror}"
                if files.note_error(text, RECEIPTS):
                    log.error(names.RECEIPTS_FAILED, extra={"session": files.session, "error": text})  # noqa: TRY400 no fault of the program
                raise
            self.proofs.written(new)
        files.clear_error(RECEIPTS)
        files.count_replaced(sum(proof.replaced and not proof.seen for _, proof in new))

    def _without_receipt(self, files: Inventory, proofs: list[tuple[Key, Proof]]) -> list[tuple[Key, Proof]]:
        """Return those of these files to which no process that has died gave a receipt. Raises OSError.

        A file that this process has not sent counts from now on, by its receipt or by itself. Its etag tells its
        receipt, or its time and content: somebody may have changed the blob's metadata since.
        """
        earlier = {
            at: proof
            for at, proof in proofs
            if not proof.seen and (files.has_receipt(at[1]) is not False or proof.sent_as != shown(at[1]))
        }
        if not earlier:
            return proofs
        about = self.receipts.about(files.session, {(proof.sent_as, proof.inode) for proof in earlier.values()})
        there = {(one["path"], one["inode"], one.get("etag")) for _, one in about}
        there |= {(one["path"], one["inode"], (one["mtime"], one["size"], one.get("crc64"))) for _, one in about}
        written = {
            at: proof
            for at, proof in earlier.items()
            if {(proof.sent_as, proof.inode, told) for told in (proof.etag, proof.content)} & there
        }
        for at, proof in earlier.items():
            files.count_earlier(at[1], proof.file.size, receipted=at in written, sure=True)
        self.proofs.written(written.items())
        return [one for one in proofs if one[0] not in written]

    def delete(self, files: Inventory, path: str, claim: Claim) -> None:
        """Delete a proven file. Raises OSError."""
        os.unlink(claim.completed, dir_fd=claim.folder)
        self.gone(files, path)
        instruments.FILES_DELETED.add(1)
        log.info(names.FILE_DELETED, extra={"session": files.session, "path": shown(path)})

    def send_again(self, files: Inventory, path: str, claim: Claim, seen: Seen, *, counted: bool = True) -> None:
        """Give a file that was still being written its plain name back, or `.processing` where that name is taken.

        `files`: the inventory of the session that sends the file; `counted`: it is the one that has counted it.
        Raises OSError, InTheWay.
        """
        at = (files.session, path)
        proof, receipted = self.proofs.get(at), self.proofs.receipted(at)
        itself = proof if proof and counted and (proof.seen or receipted) else None
        self._take_back(files, seen, by_receipt=itself is None)  # first: a receipt of what stays would count it twice
        files.given_back(path, seen.now, self.settings.settle)
        claim.take_back()
        files.uncount(path, itself.file.size if itself else None)
        files.count_replaced(-1 if itself and itself.replaced else 0)
        self.gone(files, path)
        log.warning(names.FILE_CHANGED, extra={"session": files.session, "path": shown(path)})

    def _take_back(self, files: Inventory, seen: Seen, *, by_receipt: bool = True) -> None:
        """Have the untrue receipts of a file count no more. `by_receipt`: it was counted by them. Raises OSError."""
        if seen.untrue:
            self.receipts.write(files.session, [taken_back(line) for line, _ in seen.untrue])
            for one in {one["mtime"]: one for _, one in seen.untrue if by_receipt}.values():
                files.count_receipts(-1, -one["size"], -(one.get("replaced") is not None))

    def seal(self, session: Session) -> Sealed:
        """Put the receipts of a session that has been swept into the store. Raises OSError, StoreError."""
        return seal(self.receipts, session, self.settings.blob_prefix, self.store)

    def keep(self, files: Inventory, path: str, seen: Seen) -> str:
        """Keep an unproven file, log it once, and show it in the status; return why."""
        at = (files.session, path)
        why = KEPT[seen.verdict].format(elsewhere=self._origins.none(self._parent(files)))
        self.proofs.forget(at)  # the proof is of another file
        new, remembered = self._unproven.add(at, seen.now)
        if new and remembered:
            log.error(names.FILE_UNPROVEN, extra={"session": files.session, "path": shown(path) + COMPLETED})
        if remembered:
            files.keep(path + COMPLETED, f"kept: it cannot be proven to be in the store: {why}")
        self._take_back(files, seen)
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

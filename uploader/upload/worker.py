"""Workers: each takes one file at a time from claim to completion."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import orjson

from uploader.backlog.inventory import Inventory, Item
from uploader.backlog.lane import Lane
from uploader.backlog.queues import Queues
from uploader.blob.store import Committed
from uploader.errors import (
    Cancelled,
    Fatal,
    FileError,
    HeldOpen,
    InTheWay,
    NameRefused,
    NotEligible,
    Unsettled,
    Vanished,
)
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import Fingerprint, inode, look, odd
from uploader.share.handle import CHANGED, Handle
from uploader.share.lease import OPEN
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.paths import join, opened, split
from uploader.sweep.proofs import Proof
from uploader.telemetry import instruments, names
from uploader.thread import spawn
from uploader.turns import INTERPRETER
from uploader.upload.source import Source
from uploader.upload.staging import Staging
from uploader.upload.transfer import Transfer

log = logging.getLogger(__name__)
TOLD = ("blob", "crc64", "md5", "etag", "mtime", "inode", "committed", "attempts")  # of a receipt, in the log
SMALL = 256 * 1024  # bytes; with a larger file most of the time goes by outside of Python
BLOCKS_A_FILE = 4  # blocks of memory that a large file needs to keep the connection busy


class Completed(Protocol):
    """What workers need of the `.completed` files."""

    def clear(self, files: Inventory, path: str, claim: Claim) -> bool:
        """Make room for a new `.completed`. True: there is a `.processing` now, which has to be finished first.

        Raises InTheWay, StoreError, OSError.
        """

    def proof(
        self, files: Inventory, path: str, file: Handle, done: Committed, attempts: int | None, *, certain: bool
    ) -> Proof:
        """Return what is to be remembered of a file that the store has."""

    def remember(self, files: Inventory, path: str, proof: Proof) -> None:
        """Take note that the store has confirmed this file."""


class Workers:
    """`connections` workers for small files, and as many for large ones as the memory can serve."""

    def __init__(
        self,
        settings: Settings,
        share: Share,
        backlog: Queues,
        transfer: Transfer,
        completed: Completed,
        staging: Staging | None,
    ) -> None:
        self.settings = settings
        self.share = share
        self.backlog = backlog
        self.transfer = transfer
        self.completed = completed
        self.staging = staging

    def start(self, reachable: threading.Event) -> None:
        """Start the threads. `reachable` is set while the store can be reached: else no file is taken."""
        large = max(
            1,
            min(self.settings.connections, self.settings.memory // self.settings.block_size // BLOCKS_A_FILE),
        )
        for number in range(self.settings.connections):
            spawn(f"small-{number}", self._run, self.backlog.small, reachable)
        for number in range(large):
            spawn(f"large-{number}", self._run, self.backlog.large, reachable)

    def _run(self, lane: Lane, reachable: threading.Event) -> None:
        item = lane.take(reachable)
        while True:
            item = self.handle(item, partial(lane.another, reachable)) or lane.take(reachable)

    def handle(self, item: Item, another: Callable[[], Item | None] = lambda: None) -> Item | None:
        """Take one file from claim to completion, and small ones that follow: a turn that is handed on costs a switch.

        Return one that was taken and is too large for a turn. The errors of a file stop no other (I7).
        """
        if item.size > SMALL:
            self._handle(item)
            return None
        with INTERPRETER.turn():
            following: Item | None = item
            while following and following.size <= SMALL:
                self._handle(following)
                following = another() if INTERPRETER.taken() else None
        return following

    def _handle(self, item: Item) -> None:
        with instruments.file(item.files.session, item.path, item.attempts):
            self._claimed(item)

    def _claimed(self, item: Item) -> None:
        folder, name = split(item.path)
        try:
            with opened(self.share.fd, join(item.files.session, folder)) as at:
                self._upload(item, Claim(at, name, Mark(self.share, item.files.session).set))
        except (Vanished, FileNotFoundError):
            pass  # the producer or another shard took the file; the next scan finds what is there
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            item.files.fail(item.path, error, item.size)
        except Fatal:
            raise
        except Exception as error:  # noqa: BLE001 a fault of ours in one file
            item.files.fail(item.path, error, item.size)
        finally:
            item.files.done(item)

    def _upload(self, item: Item, claim: Claim) -> None:
        began = time.monotonic()
        leftover = self._claim(item, claim)
        instruments.phase(names.CLAIMED)
        try:
            with Handle(claim.folder, claim.processing, self.share.tells) as file:
                done = self._send(item, claim, file, leftover=leftover)
                self._complete(item, claim, file, done)
        except (Cancelled, Unsettled) as reason:
            self._give_back(item, claim, reason)  # closed by then: NFS keeps an open file that is unlinked as .nfs*
        except NameRefused:
            with suppress(InTheWay, OSError):
                claim.give_back()  # so that its producer sees it under the name that has to change
            raise
        else:
            instruments.uploaded(item.size, began)

    def _claim(self, item: Item, claim: Claim) -> bool:
        """Have `.processing`; True when that is an older file than the one found. Raises Vanished, FileError."""
        if claim.held():
            _regular(claim, claim.processing)
            self._finish(item, claim)
            self.completed.clear(item.files, item.path, claim)  # an older file is sent before this one
            return True
        if self._make_room(item, claim):
            return True
        claim.take()
        return False

    def _finish(self, item: Item, claim: Claim) -> None:
        """End a step that is half done. Raises Vanished when the file has its plain name back: it has to settle."""
        claim.finish()
        if not claim.held():
            self._settles(item, look(claim.folder, claim.name))
            raise Vanished(claim.processing)

    def _make_room(self, item: Item, claim: Claim) -> bool:
        """Make room for `.completed`, but only while the plain name is still the file that was found.

        Otherwise another shard may have completed that very file, which keeps its retention: a writer may have it open.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        _regular(claim, claim.completed)
        if not look(claim.folder, claim.name).same_but_ctime(item.found):
            raise Vanished(claim.name)
        return self.completed.clear(item.files, item.path, claim)

    def _send(self, item: Item, claim: Claim, file: Handle, *, leftover: bool) -> Committed:
        """Return what the store has confirmed. Raises Cancelled, Unsettled, FileError, OSError."""
        file.begin()
        item.files.resize(item, file.now.size)
        # The rename made the server tell the truth: a read delegation may have hidden a writer till then.
        if not leftover and not file.now.same_but_ctime(item.found):
            raise Unsettled(CHANGED)
        done = self._transfer(item, claim, file, retried=leftover or item.attempts > 0)
        file.untouched()
        return done

    def _transfer(self, item: Item, claim: Claim, file: Handle, *, retried: bool) -> Committed:
        copy = self.staging.begin(item.files.session, item.path, file.now.size) if self.staging else None
        try:
            return self.transfer.upload(
                Source(
                    file=file,
                    blob=f"{self.settings.blob_prefix}{item.files.session}/{item.path}",
                    session=item.files.session,
                    retried=retried,
                    last_look=lambda: file.last_look(claim.folder, claim.processing),
                    cancelled=lambda: item.files.cancelled,
                    sent=item.sent,
                    told=item.files.told,
                    copy=copy,
                )
            )
        finally:
            if copy:
                copy.remove()

    def _complete(self, item: Item, claim: Claim, file: Handle, done: Committed) -> None:
        certain = not file.now.coarse
        try:
            claim.complete(file.now.inode)
        except InTheWay:
            self.completed.clear(item.files, item.path, claim)
            claim.complete(file.now.inode)
        with suppress(Unsettled):  # `now` stays what was committed, by which the sweeper finds out
            file.stepped()
        proof = self.completed.proof(item.files, item.path, file, done, item.attempts + 1, certain=certain)
        self.completed.remember(item.files, item.path, proof)
        item.files.count_done(item)
        item.files.told.over(names.FILE_GIVEN_BACK, item.path)
        instruments.phase(names.COMPLETED)
        extra = {"session": item.files.session, "path": item.path}
        if before := done.replaced:
            item.files.count_replaced(1)
            instruments.replaced(kept=before.snapshot is not None)
            log.warning(names.FILE_REPLACED, extra=extra | {"etag": before.etag, "snapshot": before.snapshot})
        written = orjson.loads(proof.receipt)
        log.info(names.FILE_COMPLETED, extra=extra | {name: written[name] for name in TOLD} | {"bytes": item.size})

    def _give_back(self, item: Item, claim: Claim, reason: Exception) -> None:
        self._settles(item, look(claim.folder, claim.processing), OPEN if isinstance(reason, HeldOpen) else "")
        try:
            claim.give_back()
        except InTheWay:
            if isinstance(reason, HeldOpen):
                raise reason from None  # that is what both wait for: this file and the newer one under its name
            raise
        why = str(reason) or "the session ended"
        if item.files.told.news(names.FILE_GIVEN_BACK, item.path, why):
            log.info(names.FILE_GIVEN_BACK, extra={"session": item.files.session, "path": item.path, "reason": why})

    def _settles(self, item: Item, current: Fingerprint, reason: str = "") -> None:
        settle = self.settings.settle if current.size else self.settings.settle_empty
        item.files.given_back(item.path, current, settle, reason=reason)


def _regular(claim: Claim, name: str) -> None:
    """Raise NotEligible when something that is no file stands where this one's claim or completion would."""
    if reason := odd(claim.folder, name):
        raise NotEligible(f"{name} is in its way: {reason}")

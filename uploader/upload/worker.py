"""Workers: each takes one file at a time from claim to completion."""

import logging
import os
import time
from typing import Protocol

from uploader.backlog.inventory import Inventory, Item
from uploader.backlog.lane import Lane
from uploader.backlog.queues import Queues
from uploader.errors import Cancelled, Fatal, FileError, InTheWay, Unsettled, Vanished
from uploader.settings import Settings
from uploader.share.claim import Claim
from uploader.share.fingerprint import Fingerprint, inode, look, read, unchanged
from uploader.share.mount import Share
from uploader.share.paths import join, opened, split
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown
from uploader.thread import spawn
from uploader.upload.source import Source
from uploader.upload.staging import Staging
from uploader.upload.transfer import Transfer

log = logging.getLogger(__name__)
BLOCKS_A_FILE = 4  # blocks of memory that a large file needs to keep the connection busy


class Completed(Protocol):
    """What workers need of the `.completed` files."""

    def clear(self, files: Inventory, path: str, claim: Claim) -> bool:
        """Make room for a new `.completed`. True: there is a `.processing` now, which has to be finished first.

        Raises InTheWay, StoreError, OSError.
        """

    def remember(self, files: Inventory, path: str, committed: Fingerprint) -> None:
        """Remember that the store has confirmed this file."""


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

    def start(self) -> None:
        """Start the threads."""
        large = max(
            1,
            min(self.settings.connections, self.settings.memory // self.settings.block_size // BLOCKS_A_FILE),
        )
        for number in range(self.settings.connections):
            spawn(f"small-{number}", self._run, self.backlog.small)
        for number in range(large):
            spawn(f"large-{number}", self._run, self.backlog.large)

    def _run(self, lane: Lane) -> None:
        while True:
            item = lane.take()
            with instruments.file(item.files.session, item.path, item.attempts):
                self.handle(item)

    def handle(self, item: Item) -> None:
        """Take one file from claim to completion. Its errors stop no other file (I7)."""
        folder, name = split(item.path)
        try:
            with opened(self.share.fd, join(item.files.session, folder)) as at:
                self._upload(item, Claim(at, name))
        except (Vanished, FileNotFoundError):
            pass  # the producer or another shard took the file; the next scan finds what is there
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            item.files.fail(item.path, error, item.size)
        except Fatal:
            raise
        except Exception as error:
            log.exception(names.FILE_FAILED, extra={"session": item.files.session, "path": shown(item.path)})
            item.files.fail(item.path, error, item.size)
        finally:
            item.files.done(item)

    def _upload(self, item: Item, claim: Claim) -> None:
        began = time.monotonic()
        leftover = self._claim(item, claim)
        instruments.phase(names.CLAIMED)
        try:
            committed = self._send(item, claim, leftover=leftover)
        except (Cancelled, Unsettled) as reason:
            self._give_back(item, claim, reason)
        else:
            self._complete(item, claim, committed)
            instruments.uploaded(item.size, began)

    def _claim(self, item: Item, claim: Claim) -> bool:
        """Claim the file; True when `.processing` is a file that was claimed earlier. Raises Vanished, InTheWay."""
        if claim.held() or self._make_room(item, claim):
            claim.finish_giving_back()
            return True
        claim.take()
        return False

    def _make_room(self, item: Item, claim: Claim) -> bool:
        """Make room for `.completed`, but only while the plain name is still the file that was found.

        Otherwise another shard may have completed that very file, which keeps its retention: a writer may have it open.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        if not look(claim.folder, claim.name).same(item.found):
            raise Vanished(claim.name)
        return self.completed.clear(item.files, item.path, claim)

    def _send(self, item: Item, claim: Claim, *, leftover: bool) -> Fingerprint:
        """Return the file's fingerprint once the store has confirmed it. Raises Cancelled, FileError, OSError."""
        fd, current = read(claim.folder, claim.processing)
        try:
            item.files.resize(item, current.size)
            if not leftover:
                # The rename ended any read delegation, which may have hidden a writer until now.
                unchanged(item.found, current)
            self._transfer(item, claim, fd, current, retried=leftover or item.attempts > 0)
        finally:
            os.close(fd)
        return current

    def _transfer(self, item: Item, claim: Claim, fd: int, current: Fingerprint, *, retried: bool) -> None:
        copy = self.staging.begin(item.files.session, item.path, current.size) if self.staging else None
        try:
            self.transfer.upload(
                Source(
                    fd=fd,
                    look=current,
                    blob=f"{self.settings.blob_prefix}{item.files.session}/{item.path}",
                    session=item.files.session,
                    retried=retried,
                    check=lambda: look(claim.folder, claim.processing, thaw=True),
                    cancelled=lambda: item.files.cancelled,
                    sent=item.sent,
                    copy=copy,
                )
            )
        finally:
            if copy:
                copy.remove()

    def _complete(self, item: Item, claim: Claim, committed: Fingerprint) -> None:
        try:
            claim.complete(committed.inode)
        except InTheWay:
            self.completed.clear(item.files, item.path, claim)
            claim.complete(committed.inode)
        self.completed.remember(item.files, item.path, committed)
        item.files.count_done(item)
        instruments.phase(names.COMPLETED)
        log.info(names.FILE_COMPLETED, extra={"session": item.files.session, "path": item.path, "bytes": item.size})

    def _give_back(self, item: Item, claim: Claim, reason: Exception) -> None:
        current = look(claim.folder, claim.processing)
        item.files.given_back(item.path, current, self.settings.settle if current.size else self.settings.settle_empty)
        claim.give_back()
        extra = {
            "session": item.files.session,
            "path": item.path,
            "reason": str(reason) or "the session ended",
        }
        log.info(names.FILE_GIVEN_BACK, extra=extra)

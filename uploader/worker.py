"""Workers: one file each, from claim to completion."""

import logging
import os
import time

from uploader import names, telemetry
from uploader.backlog import Backlog
from uploader.claim import Claim
from uploader.errors import Cancelled, Fatal, FileError, InTheWay, Unsettled, Vanished
from uploader.files import FIRST_BACKOFF, Item
from uploader.folder import join, opened, shown, split
from uploader.look import Look, inode, look, read, unchanged
from uploader.settings import Settings
from uploader.share import Share
from uploader.source import Source
from uploader.stage import Staging
from uploader.sweep import Sweeper
from uploader.thread import spawn
from uploader.transfer import Transfer

log = logging.getLogger(__name__)
BLOCKS_A_FILE = 4  # blocks of memory that a large file needs to keep the connection busy


class Workers:
    """`connections` workers for small files, and as many for large ones as the memory can serve."""

    def __init__(
        self,
        settings: Settings,
        share: Share,
        backlog: Backlog,
        transfer: Transfer,
        sweeper: Sweeper,
        staging: Staging | None,
    ) -> None:
        self.settings = settings
        self.share = share
        self.backlog = backlog
        self.transfer = transfer
        self.sweeper = sweeper
        self.staging = staging

    def start(self) -> None:
        """Begin."""
        large = max(
            1,
            min(self.settings.connections, self.settings.memory // self.settings.block_size // BLOCKS_A_FILE),
        )
        for number in range(self.settings.connections):
            spawn(f"small-{number}", self._run, True)
        for number in range(large):
            spawn(f"large-{number}", self._run, False)

    def _run(self, small: bool) -> None:  # noqa: FBT001 a thread's argument
        while True:
            item = self.backlog.take(small=small)
            try:
                with telemetry.file(item.files.session, item.path, item.attempts):
                    self._handle(item)
            finally:
                self.backlog.done(item)

    def _handle(self, item: Item) -> None:
        try:
            folder, name = split(item.path)
            with opened(self.share.fd, join(item.files.session, folder)) as at:
                self._upload(item, Claim(at, name))
        except (Vanished, FileNotFoundError):
            return  # the producer, or another shard, was quicker; the scan knows what is there now
        except (FileError, OSError) as error:
            if isinstance(error, OSError):
                self.share.judge(error)
            self._failed(item, error)
        except Fatal:
            raise
        except Exception as error:
            log.exception(names.FILE_FAILED, extra={"session": item.files.session, "path": shown(item.path)})
            self._failed(item, error)  # one bad file never stops the others (I7)

    def _failed(self, item: Item, error: Exception) -> None:
        if not item.files.fail(item.path, error, item.size):
            time.sleep(FIRST_BACKOFF)  # in place of a backoff of its own: thousands fail, and each scan meets it again

    def _upload(self, item: Item, claim: Claim) -> None:
        began = time.monotonic()
        blob = f"{self.settings.blob_prefix}{item.files.session}/{item.path}"
        leftover = claim.held() or self._make_room(item, claim)
        if not leftover:
            claim.take()
        telemetry.phase(names.CLAIMED)
        fd, current = read(claim.folder, claim.processing)
        try:
            if leftover and inode(claim.folder, claim.name) == current.inode:
                claim.give_back()  # killed while it was given back: one file under two names
                return
            item.size = current.size
            if not leftover:
                # The rename made the server tell the truth: a read delegation may have hidden a writer till then.
                unchanged(item.found, current)
            self._send(item, claim, blob, fd, current, retried=leftover or item.attempts > 0)
        except (Cancelled, Unsettled) as reason:
            self._give_back(item, claim, reason)
            return
        finally:
            os.close(fd)
        self._complete(item, claim, current)
        telemetry.uploaded(item.size, began)

    def _make_room(self, item: Item, claim: Claim) -> bool:
        """Clear what stands in the way of the file that was found, and of no other: an item may be out of date.

        Another shard may have completed the file, and a writer may still have it open: it keeps its retention.
        """
        if inode(claim.folder, claim.completed) is None:
            return False
        if not look(claim.folder, claim.name).same(item.found):
            raise Vanished(claim.name)
        return self.sweeper.clear(item.files, item.path, claim)

    def _send(self, item: Item, claim: Claim, blob: str, fd: int, current: Look, *, retried: bool) -> None:
        copy = self.staging.begin(item.files.session, item.path, current.size) if self.staging else None
        try:
            self.transfer.upload(
                Source(
                    fd=fd,
                    look=current,
                    blob=blob,
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

    def _complete(self, item: Item, claim: Claim, current: Look) -> None:
        try:
            claim.complete(current.inode)
        except InTheWay:
            self.sweeper.clear(item.files, item.path, claim)
            claim.complete(current.inode)
        self.sweeper.remember(item.files, item.path, current)
        item.files.succeeded(item)
        telemetry.phase(names.COMPLETED)
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

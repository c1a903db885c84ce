"""The collector: deletes `.completed` files, and nothing that is not proven to be in the store (I1)."""

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum, auto
from hashlib import md5

from uploader import names, telemetry
from uploader.backlog import Files
from uploader.checksum import crc64
from uploader.claim import Claim, move
from uploader.errors import FileError, InTheWay, StoreError
from uploader.folder import COMPLETED, join, opened, shown, split
from uploader.look import Look, inode, look, read
from uploader.scan import Kind, Rule, scan
from uploader.settings import Settings
from uploader.share import Share
from uploader.stage import Staging
from uploader.stored import Stored
from uploader.thread import spawn
from uploader.transfer import BlobStore

log = logging.getLogger(__name__)
MAX_PROOFS = 100_000  # about 300 bytes each; beyond it the store is asked
WALK = 12  # sweeps between two walks that look for what this process did not complete itself
PAUSE = 3  # the next walk is no sooner than this many times the last one's duration
RECHECK = 300.0  # seconds until something unproven is compared again
CHUNK = 1024 * 1024


class Verdict(Enum):
    """What a `.completed` file is."""

    PROVEN = auto()  # the store has it
    CHANGED = auto()  # the very file that was sent, but it was written to afterwards
    UNPROVEN = auto()  # nobody knows it: kept


class Sweeper:
    """Collects for the sessions that this shard owns, stopped ones too."""

    def __init__(self, settings: Settings, share: Share, store: BlobStore, staging: Staging | None) -> None:
        self.settings = settings
        self.share = share
        self.store = store
        self.staging = staging
        self.sessions: dict[str, Files] = {}
        self.stopped: set[str] = set()
        self.clean: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()
        self._due: deque[tuple[float, str, str]] = deque()
        self._proofs: OrderedDict[tuple[str, str], tuple[Look, float]] = OrderedDict()  # and when it may be deleted
        self._unproven: dict[tuple[str, str], tuple[Look, float]] = {}
        self._next_walk: dict[tuple[str, bool], float] = {}  # by session, and whether it had stopped

    def start(self) -> None:
        """Begin."""
        spawn("sweeper", self._run)

    def remember(self, files: Files, path: str, committed: Look) -> None:
        """Take note that this process saw the store confirm this file."""
        key = (files.session, path)
        with self._lock:
            self._proofs.pop(key, None)  # the newest stand last, even of a name that comes again
            self._put_off(key, committed, self.settings.retention)
            if len(self._proofs) > MAX_PROOFS:
                self._proofs.popitem(last=False)
            if len(self._due) > MAX_PROOFS:
                self._due.popleft()  # a walk finds it

    def _put_off(self, key: tuple[str, str], committed: Look, wait: float) -> None:
        due = time.monotonic() + wait
        self._proofs[key] = (committed, due)
        self._due.append((due, *key))

    def clear(self, files: Files, path: str, claim: Claim) -> bool:
        """Make room for a new file of this name: nothing may overwrite an unproven `.completed` (I4).

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
            for session, path in self._take_due(began):
                if files := self.sessions.get(session):
                    self._attempt(files, path)
            for session, files in list(self.sessions.items()):
                if time.monotonic() >= self._next_walk.get((session, session in self.stopped), 0.0):
                    self._walk(session, files)
            if self.staging:
                self.staging.sweep()
            time.sleep(self.settings.sweep_interval)

    def _take_due(self, now: float) -> list[tuple[str, str]]:
        with self._lock:
            due = []
            while self._due and self._due[0][0] <= now:
                _, *key = self._due.popleft()
                proof = self._proofs.get((key[0], key[1]))
                if proof and proof[1] <= now:  # else it is gone, or the name came again and has its own time
                    due.append((key[0], key[1]))
            return due

    def _attempt(self, files: Files, path: str) -> None:
        folder, name = split(path)
        try:
            with opened(self.share.fd, join(files.session, folder)) as at, files.alone(path) as alone:
                if alone:
                    self._collect(files, path, Claim(at, name))
                    return
        except FileNotFoundError:
            self._gone(files, path)
        except (FileError, OSError) as error:
            self._failed(files, path, error)
        with self._lock:
            if proof := self._proofs.get((files.session, path)):
                self._put_off((files.session, path), proof[0], self.settings.sweep_interval)

    def _gone(self, files: Files, path: str) -> None:
        with self._lock:
            self._proofs.pop((files.session, path), None)
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
                    elif found.error:
                        self.share.judge(found.error)
                        left += 1
        except OSError as error:
            self.share.judge(error)
            self.share.probe()  # gone is not empty (I6)
            left += 0 if isinstance(error, FileNotFoundError) else 1
        if (stopped := session in self.stopped) and not left:
            self.clean(session)
        took = time.monotonic() - began
        pause = max(PAUSE * took, (1 if stopped else WALK) * self.settings.sweep_interval)
        self._next_walk[session, stopped] = time.monotonic() + pause

    def _meet(self, files: Files, path: str, claim: Claim, oldest: int) -> int:
        """Collect one leftover; return 1 when it is still there."""
        with self._lock:
            proof = self._proofs.get((files.session, path))
        if proof and proof[1] > time.monotonic():
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
        with self._lock:
            committed, _ = self._proofs.get(key, (None, 0.0))
        parent = f"{self.settings.blob_prefix}{files.session}/"
        blob = None if Rule((), parent).objection(path) else parent + path  # nobody can have sent such a name
        verdict, current = self._judge(claim, committed, blob)
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
        with self._lock:
            self._proofs.pop(key, None)
            self._unproven.pop(key, None)
        files.kept.pop(path + COMPLETED, None)
        return verdict

    def _judge(self, claim: Claim, committed: Look | None, blob: str | None) -> tuple[Verdict, Look]:
        fd, current = read(claim.folder, claim.completed)
        try:
            if committed and committed.inode == current.inode:
                return (Verdict.PROVEN if committed.same(current) else Verdict.CHANGED), current
            stored = self.store.head(blob) if blob else None
            if stored is None:
                return Verdict.UNPROVEN, current
            if stored.size == current.size and _matches(fd, stored):
                return Verdict.PROVEN, current
            same_file = stored.inode == str(current.inode)
            return (Verdict.CHANGED if same_file else Verdict.UNPROVEN), current
        finally:
            os.close(fd)

    def _send_again(self, files: Files, path: str, claim: Claim, current: Look) -> None:
        """Put a file that was still being written back to its plain name, or finish it before a newer one there."""
        files.given_back(path, current, self.settings.settle)
        try:
            move(claim.folder, claim.completed, claim.name)
        except (InTheWay, PermissionError):
            claim.reopen()
        log.warning(names.FILE_CHANGED, extra={"session": files.session, "path": shown(path)})

    def _keep(self, files: Files, path: str, current: Look) -> None:
        key = (files.session, path)
        if key not in self._unproven:
            log.error(names.FILE_UNPROVEN, extra={"session": files.session, "path": shown(path) + COMPLETED})
        if key in self._unproven or len(self._unproven) < MAX_PROOFS:
            self._unproven[key] = (current, time.monotonic() + RECHECK)
            files.kept[path + COMPLETED] = "its content is not in the store; it is kept"


def _matches(fd: int, stored: Stored) -> bool:
    """Compare a file of the right length with the blob's CRC64, else with its MD5; without either it is no match."""
    digest, crc, offset = md5(usedforsecurity=False), 0, 0
    if stored.crc64 is None and stored.md5 is None:
        return False
    while data := os.pread(fd, CHUNK, offset):
        offset += len(data)
        if stored.crc64 is not None:
            crc = crc64(data, crc)
        else:
            digest.update(data)
    if offset != stored.size:
        return False
    return crc == stored.crc64 if stored.crc64 is not None else digest.digest() == stored.md5

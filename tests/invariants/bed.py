"""The parts of one shard without its threads, so that a test decides what happens when; and a store with hooks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from tests.support.clock import tick
from tests.support.fake_store import FakeStore
from uploader.backlog.inventory import Inventory, Item
from uploader.backlog.queues import Queues
from uploader.blob.store import BlobStore, Label, Meter, Stored
from uploader.discovery.discover import Discovery
from uploader.discovery.watch import Listener, Watch
from uploader.session import Session, State
from uploader.sessions.give_back import give_back
from uploader.settings import Settings
from uploader.share.filesystem import FileSystem
from uploader.share.fingerprint import look
from uploader.share.mount import Share
from uploader.share.paths import opened, split
from uploader.share.scan import Rule
from uploader.sweep.completed import Completed
from uploader.sweep.owned import Owned, Sessions
from uploader.sweep.seal import Sealed
from uploader.sweep.sweeper import Sweeper
from uploader.upload.memory import Memory
from uploader.upload.transfer import Transfer
from uploader.upload.worker import Workers

STARTED = "2026-03-01T12:00:00.000Z"
BLOCK = 64 * 1024
NFS = FileSystem("nfs4", leases=False, births=False)
CONNECTION = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;"


class Hooked(FakeStore):
    """Calls `before[what](name)` before each head, put, stage or commit."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Callable[[str], object]] = {}

    def head(self, name: str, snapshot: str = "") -> Stored | None:
        self._call("head", name)
        return super().head(name, snapshot)

    def put(self, name: str, data: bytes, label: Label, etag: str | None, meter: Meter | None = None) -> str:
        self._call("put", name)
        return super().put(name, data, label, etag, meter)

    def stage(self, name: str, block_id: str, data: memoryview, crc: int, meter: Meter | None = None) -> None:
        self._call("stage", name)
        super().stage(name, block_id, data, crc, meter)

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        self._call("commit", name)
        return super().commit(name, block_ids, label, etag)

    def _call(self, what: str, name: str) -> None:
        if hook := self.before.get(what):
            hook(name)


class Deaf(Watch):
    """Delivers no events: they come at any time, and each request for another scan would keep a drain from ending."""

    def __init__(self) -> None:
        """Take no inotify instance: the system has few."""

    def add(self, listener: Listener, path: str, folder: int) -> None:
        """Watch nothing."""

    def drop(self, listener: Listener) -> None:
        """There is nothing to drop."""


class One:
    """The single session of a bed without a service. `ended` lists what the sweeper has reported as swept."""

    def __init__(self, files: Inventory) -> None:
        self.files = files
        self.stopped = False
        self.ended: list[str] = []
        self.sealed: Sealed | None = None

    def owned(self) -> dict[str, Owned]:
        state = State.STOPPED if self.stopped else State.ACTIVE
        return {self.files.session: Owned(Session(self.files.session, state, 0, STARTED), self.files)}

    def swept(self, name: str, sealed: Sealed) -> None:
        self.ended.append(name)
        self.sealed = sealed

    @contextmanager
    def reopen(self, name: str) -> Iterator[Inventory | None]:
        assert name == self.files.session
        yield self.files


class Bed:
    """A shard's parts around one session. `again` builds what a new process would have: the same share and store."""

    def __init__(
        self,
        root: Path,
        store: BlobStore | None = None,
        session: str = "run",
        tells: FileSystem | None = None,
        **settings: Any,
    ) -> None:
        """`tells`: what the share's file system shall tell, where that is less than it can."""
        self.root = root
        self.folder = root / session
        self.folder.mkdir(exist_ok=True)
        self.store: Any = store or Hooked()
        given: dict[str, Any] = {"root": root, "container": "uploads", "ordinal": 0, "block_size": BLOCK}
        given |= {"memory": 16 * BLOCK, "settle": 0, "settle_empty": 0, "retention": 0, "connections": 4}
        given |= {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION} | settings
        self.settings = Settings(**given)
        self.share = Share(root, 0, 5)
        self.share.tells = tells or self.share.tells
        self.backlog = Queues(BLOCK)
        self.completed = Completed(self.settings, self.share, self.store)
        self.memory = Memory(self.settings.memory, BLOCK)
        self.transfer = Transfer(
            self.store,
            self.memory,
            self.settings.connections,
            content_md5=True,
            on_conflict=self.settings.on_conflict,
        )
        self.workers = Workers(self.settings, self.share, self.backlog, self.transfer, self.completed, None)
        self.files = Inventory(session, self.settings.queue_size)
        self.backlog.add(self.files)
        self.session = One(self.files)
        self.serve(self.session)
        rule = Rule(self.settings.extensions, f"{session}/", self.settings.temporary)
        self.discovery = Discovery(self.files, rule, self.settings, self.share, Deaf(), self.backlog, Event())

    def serve(self, sessions: Sessions) -> None:
        """Sweep these sessions from now on."""
        self.sweeper = Sweeper(self.settings, self.share, self.completed, sessions, None)

    def again(self, **settings: Any) -> "Bed":
        return Bed(self.root, self.store, self.files.session, self.share.tells, **settings)

    def write(self, path: str, content: bytes) -> Path:
        """Let a finished file arrive."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(".unfinished")
        unfinished.write_bytes(content)
        return unfinished.rename(target)

    def append(self, name: str, content: bytes) -> None:
        """Let a slow writer's next bytes come, of whom nothing could be known before: over NFS, say."""
        with (self.folder / name).open("ab") as writer:
            writer.write(content)

    def tick(self) -> None:
        """Wait until the clock that gives files their times has moved on."""
        tick(self.root / ".tick")

    def item(self, path: str, name: str = "") -> Item:
        """Take this file as a worker would. `name` is its present name where that is not the plain one."""
        folder, plain = split(path)
        with opened(self.share.fd, f"{self.files.session}/{folder}" if folder else self.files.session) as at:
            found = look(at, name or plain)
        assert self.backlog.offer(self.files, path, found)
        return self.backlog.lane(found.size).take()

    def handle(self, item: Item) -> None:
        """Do a worker's work on this item."""
        self.workers.handle(item)

    def upload(self, path: str, name: str = "") -> None:
        self.handle(self.item(path, name))

    def scan(self) -> None:
        """One scan of discovery."""
        self.discovery.scan_once()

    def work(self) -> None:
        """Handle all that waits."""
        for lane in (self.backlog.small, self.backlog.large):
            while lane.waits(self.files):
                self.handle(lane.take())

    def give_back(self) -> None:
        """Give the remaining claims back, as a stop does."""
        give_back(self.discovery.walk(), self.share, self.files)

    def error(self, path: str) -> str:
        """Return why a file has failed."""
        failure = self.files.failure(path)
        assert failure
        return failure.error

    def retry_now(self, path: str) -> None:
        """End the backoff of a file that failed."""
        if failure := self.files.failure(path):
            failure.due = 0

    def due_now(self, path: str) -> None:
        """End the settling time of a file."""
        settling = self.files.settling(path)
        assert settling
        settling.due = 0

    def settle(self) -> None:
        """Scan, work and sweep until nothing changes any more; backoffs are ended."""
        for _ in range(20):
            before = self.names(), self.files.snapshot().completed
            for shown in self.files.snapshot(1000).current:
                self.retry_now(shown.path)
            self.scan()
            self.work()
            self.walk()
            if (self.names(), self.files.snapshot().completed) == before:
                return
        raise AssertionError(f"it does not come to rest: {self.names()}")

    def walk(self) -> None:
        """One walk of the sweeper."""
        self.sweeper.walk_once(self.sweeper.sessions.owned()[self.files.session])

    def due(self) -> None:
        """Let the sweeper delete what has become due."""
        self.sweeper.collect_due(float("inf"))

    def names(self) -> list[str]:
        """Return every file below the session's folder."""
        found = [
            os.path.relpath(os.path.join(at, one), self.folder) for at, _, all_ in os.walk(self.folder) for one in all_
        ]
        return sorted(found)

    def content(self, path: str) -> bytes:
        """Return the blob of a path."""
        return bytes(self.store.content(f"{self.files.session}/{path}"))

    def close(self) -> None:
        self.transfer._pools.senders.shutdown()
        self.share.close()

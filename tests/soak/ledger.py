"""The checker's record: what was written, what is in the store, and whether the two agree, at every moment."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.endpoint.store import Blob, Block, Source, Store
from tests.soak.content import Print

NEVER = -1
RECEIPTS = "/.receipts/"  # in the names of blobs that are no file of a producer


@dataclass
class File:
    """One name, or two of them where its folder is renamed. Versions count from 0; NEVER means none yet."""

    path: str
    other: str = ""  # the name that it gets, or has, when its folder is renamed
    prints: list[Print] = field(default_factory=list)
    unfinished: set[Print] = field(default_factory=set)  # beginnings that lay longer than a writer may pause
    landed: int = NEVER  # the newest version that got its name
    committed: int = NEVER  # the newest in the store, since the container was made
    lost_with_container: int = NEVER  # the newest that was in a container when that was deleted
    gone: int = NEVER  # the newest that was seen to have left the share

    @property
    def names(self) -> list[str]:
        """The names under which it may be on the share, and in the store."""
        return [self.path, self.other] if self.other else [self.path]

    def version(self, found: Print) -> int | None:
        """Return the newest version of this content."""
        return next((number for number in reversed(range(len(self.prints))) if self.prints[number] == found), None)


class Ledger:
    """All files, and the faults found. Any thread may call it."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.wrong: list[str] = []
        self.counted: Counter[str] = Counter()
        self.lock = threading.RLock()

    def finished(self, path: str, content: Print) -> int:
        """Note a new version, whose last byte is about to be written. Returns its number."""
        with self.lock:
            file = self.files.setdefault(path, File(path))
            file.prints.append(content)
            self.counted["versions"] += 1
            self.counted["bytes written"] += sum(length for length, _ in content)
            return len(file.prints) - 1

    def landed(self, path: str, version: int) -> None:
        """Note that this version has its name now."""
        with self.lock:
            self.files[path].landed = version

    def also(self, path: str, other: str) -> None:
        """Note the name that a file is about to get because its folder is renamed."""
        with self.lock:
            file = self.files[path]
            file.other = other
            self.files[other] = file

    def replaced(self, path: str, before: Print, now: Print, kept: Iterable[Print]) -> None:
        """Check that content which is replaced, and does not go on in the new one, is kept (I12)."""
        with self.lock:
            self.counted["commits over other content"] += 1
            file = self.files.get(path)
            if before and before != now and before not in kept and not (file and before in file.unfinished):
                self.wrong.append(f"replaced without a snapshot: {path} {before[:3]}")

    def paused(self, path: str, beginning: Print) -> None:
        """Note that a writer was held up for longer than it may pause, so its beginning may be sent."""
        with self.lock:
            self.files.setdefault(path, File(path)).unfinished.add(beginning)
            self.counted["writers held up too long"] += 1

    def took(self, path: str, content: Print) -> None:
        """Check the content that the store commits under this name, and note it."""
        with self.lock:
            self.counted["commits"] += 1
            self.counted["bytes committed"] += sum(length for length, _ in content)
            file = self.files.get(path)
            version = file.version(content) if file else None
            if file is None:
                self.wrong.append(f"committed, but nobody may send it: {path}")
            elif version is None and content not in file.unfinished:
                self.wrong.append(f"committed, but no finished version: {path} {content[:3]} of {len(file.prints)}")
            elif version is not None and version < file.committed:
                self.wrong.append(f"version {version} went over version {file.committed}: {path}")
            elif version is not None:
                self.counted["commits of what was there already"] += version == file.committed
                file.committed = version

    def container_deleted(self) -> None:
        """Note that its blobs are gone, and that files that had left the share by then do not count as lost."""
        with self.lock:
            self.counted["containers deleted"] += 1
            for file in self.files.values():
                file.lost_with_container = max(file.lost_with_container, file.committed)
                file.committed = NEVER

    def vanished(self, file: File, version: int) -> None:
        """Check the store for this version, none of whose three names is on the share any more."""
        with self.lock:
            file.gone = version
            if max(file.committed, file.lost_with_container) < version and not file.unfinished:
                self.wrong.append(f"left the share without being in the store: {file.path} version {version}")

    def check_end(self, blobs: Mapping[str, Blob]) -> None:
        """Check that the store has the newest version of every name, and nothing else."""
        with self.lock:
            for path, file in self.files.items():
                there = [blobs[name] for name in file.names if name in blobs]
                newest = len(file.prints) - 1
                if not there:
                    if file.landed > file.lost_with_container:
                        self.wrong.append(f"not in the store: {path}")
                elif newest > file.lost_with_container and not any(
                    file.version(content(blob.committed or [])) == newest for blob in there
                ):
                    self.wrong.append(f"not the newest version in the store: {path}")
            self.wrong += [
                f"in the store, but nobody wrote it: {path}"
                for path in blobs
                if path not in self.files and RECEIPTS not in path
            ]

    def waiting(self) -> int:
        """Return how many names have a version that is not in the store yet."""
        with self.lock:
            files = {id(file): file for file in self.files.values()}.values()
            return sum(file.landed > max(file.committed, file.lost_with_container) for file in files)


def content(blocks: list[Block]) -> Print:
    """Return the lengths and CRC64s of a blob's blocks."""
    return tuple((block.length, block.crc64) for block in blocks if block.length)


class CheckedStore(Store):
    """The endpoint's store, which tells the ledger of each commit as part of it. Keeps checksums only."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(keep_bytes=False)
        self.ledger = ledger

    def put_blob(
        self, container: str, name: str, block: Block, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Blob:
        with self._lock:
            before = self._before(container, name)
            return self._heard(name, before, super().put_blob(container, name, block, headers, metadata))

    def put_block_list(
        self,
        container: str,
        name: str,
        wanted: Iterable[tuple[Source, str]],
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> Blob:
        with self._lock:
            before = self._before(container, name)
            return self._heard(name, before, super().put_block_list(container, name, wanted, headers, metadata))

    def drop(self, container: str, being_deleted: float = 0) -> None:
        with self._lock:
            super().drop(container, being_deleted)
            self.ledger.container_deleted()

    def _before(self, container: str, name: str) -> Print | None:
        there = self.container(container).get(name)
        return content(there.committed) if there and there.committed is not None else None

    def _heard(self, name: str, before: Print | None, blob: Blob) -> Blob:
        if RECEIPTS not in name:
            now = content(blob.committed or [])
            self.ledger.took(name, now)
            if before is not None:
                kept = [content(one.committed or []) for one in blob.snapshots.values()]
                self.ledger.replaced(name, before, now, kept)
        return blob

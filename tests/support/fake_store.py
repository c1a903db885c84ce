"""A blob store in memory that keeps the contract of uploader.blob.store.BlobStore; tests/blob/test_seam.py checks it."""

import itertools
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import Blocks, Label, Meter, Stored
from uploader.errors import ExpiredBlocks, LeftoverBlocks, Overtaken, StoreRefused


@dataclass
class Blob:
    """One name: its committed parts, None while there are none, and its uncommitted blocks."""

    parts: list[tuple[str, bytes]] | None = None
    waiting: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    md5: bytes | None = None
    etag: str = ""
    snapshots: dict[str, "Blob"] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"".join(data for _, data in self.parts or [])

    def stored(self) -> Stored:
        said = self.metadata
        crc = int.from_bytes(b64decode(said["crc64"]), "little") if "crc64" in said else None
        return Stored(len(self.content), self.etag, crc, self.md5, said.get("inode"), said.get("born"), dict(said))


class FakeStore:
    """Every method is one atomic step. `writes` lists the names that were put or committed, in order."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self._blobs: dict[str, Blob] = {}
        self._etags = itertools.count(1)
        self._lock = threading.RLock()

    def content(self, name: str) -> bytes:
        """Return a committed blob's bytes."""
        with self._lock:
            blob = self._blobs[name]
            assert blob.parts is not None, f"{name} is not committed"
            return blob.content

    def head(self, name: str, snapshot: str = "") -> Stored | None:
        with self._lock:
            blob = self._blobs.get(name, Blob())
            blob = blob.snapshots.get(snapshot, Blob()) if snapshot else blob
            if blob.parts is None:
                return None
            return blob.stored()

    def put(self, name: str, data: bytes, label: Label, etag: str | None, meter: Meter | None = None) -> str:
        _verify(data, label.crc64)
        _tell(meter, len(data))
        if label.md5 not in {None, md5(data).digest()}:
            raise StoreRefused("the MD5 is not that of the body")
        with self._lock:
            blob = self._conditional(name, etag)
            return self._write(name, blob, [("", data)], label, md5(data).digest())

    def blocks(self, name: str) -> Blocks:
        with self._lock:
            blob = self._blobs.get(name, Blob())
            waiting = {block_id: len(data) for block_id, data in blob.waiting.items()}
            committed = [block_id for block_id, _ in blob.parts or [] if block_id]
            return Blocks(waiting, committed, blob.etag if blob.parts is not None else None)

    def stage(self, name: str, block_id: str, data: memoryview, crc: int, meter: Meter | None = None) -> None:
        _verify(data, crc)
        _tell(meter, len(data))
        with self._lock:
            blob = self._blobs.setdefault(name, Blob())
            if any(len(b64decode(other)) != len(b64decode(block_id)) for other in blob.waiting):
                raise LeftoverBlocks("ids of another length wait")
            blob.waiting[block_id] = bytes(data)

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        with self._lock:
            blob = self._conditional(name, etag)
            known = dict(blob.parts or []) | blob.waiting
            if missing := [block_id for block_id in block_ids if block_id not in known]:
                raise ExpiredBlocks(f"{len(missing)} blocks are not there")
            return self._write(name, blob, [(block_id, known[block_id]) for block_id in block_ids], label, label.md5)

    def relabel(self, name: str, label: Label, etag: str) -> str:
        with self._lock:
            blob = self._conditional(name, etag)
            blob.metadata, blob.etag = label.metadata(), f'"{next(self._etags)}"'
            return blob.etag

    def annotate(self, name: str, metadata: Mapping[str, str], etag: str) -> str:
        with self._lock:
            blob = self._conditional(name, etag)
            blob.metadata, blob.etag = dict(metadata), f'"{next(self._etags)}"'
            return blob.etag

    def snapshot(self, name: str, etag: str) -> str:
        with self._lock:
            blob = self._conditional(name, etag)
            snapshot = f"snapshot {next(self._etags)}"
            blob.snapshots[snapshot] = replace(blob, metadata=dict(blob.metadata), waiting={}, snapshots={})
            return snapshot

    def snapshots(self, name: str) -> dict[str, Stored]:
        with self._lock:
            return {key: kept.stored() for key, kept in self._blobs[name].snapshots.items()}

    def below(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        with self._lock:
            there = [(name, blob.stored()) for name, blob in sorted(self._blobs.items()) if blob.parts is not None]
        yield from (one for one in there if one[0].startswith(prefix))

    def kept(self, name: str) -> dict[str, bytes]:
        """Return the content of a blob's snapshots, by id."""
        with self._lock:
            return {key: kept.content for key, kept in self._blobs[name].snapshots.items()}

    def discard(self, name: str, blocks: Blocks) -> None:
        with self._lock:
            self._conditional(name, blocks.etag).waiting.clear()

    def _conditional(self, name: str, etag: str | None) -> Blob:
        blob = self._blobs.setdefault(name, Blob())
        if etag != (blob.etag if blob.parts is not None else None):
            raise Overtaken(f"{name} is not what the condition says")
        return blob

    def _write(self, name: str, blob: Blob, parts: list[tuple[str, bytes]], label: Label, digest: bytes | None) -> str:
        blob.parts, blob.metadata, blob.md5 = parts, label.metadata(), digest
        blob.waiting.clear()
        blob.etag = f'"{next(self._etags)}"'
        self.writes.append(name)
        return blob.etag


def _tell(meter: Meter | None, size: int) -> None:
    if meter:
        meter(size)


def _verify(data: bytes | memoryview, crc: int) -> None:
    if crc64(data) != crc:
        raise StoreRefused("the checksum is not that of the body")

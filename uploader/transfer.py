"""The upload engine: one claimed file into one blob, verified block by block, resumed to the block.

A block's id is its index and the CRC64 of its content, the same checksum that the service verified when it took the
block. So what a crashed upload has left can be trusted by its id alone, and two writers can never mix contents.
"""

import logging
import mimetypes
import os
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5
from typing import Protocol

from uploader import names, telemetry
from uploader.checksum import crc64
from uploader.errors import (
    Cancelled,
    ExpiredBlocks,
    LeftoverBlocks,
    NotEligible,
    Overtaken,
    ShortRead,
    TooManyBlocks,
)
from uploader.look import Look, look_at, unchanged
from uploader.memory import Memory
from uploader.stored import Blocks, Label, Stored

log = logging.getLogger(__name__)
# learn.microsoft.com/azure/storage/blobs/scalability-targets: blocks of a committed blob
MAX_BLOCKS = 50_000
ID_LENGTH = 12  # bytes: 4 of index, 8 of CRC64
SHORTEST_ID = 6  # bytes, where leftovers dictate the length: 2 of index, 4 of CRC64
MIB = 1024 * 1024


class BlobStore(Protocol):
    """What the engine needs of a store. Every call may raise StoreError; `etag` None: the blob must not exist yet.

    A write whose condition does not hold raises Overtaken and changes nothing.
    """

    def head(self, name: str) -> Stored | None:
        """Describe a committed blob, None when there is none."""

    def put(self, name: str, data: bytes, label: Label, etag: str | None) -> None:
        """Write a whole blob; the service verifies its checksum."""

    def blocks(self, name: str) -> Blocks:
        """List the blob's blocks; none when it does not exist."""

    def stage(self, name: str, block_id: str, data: memoryview, crc: int) -> None:
        """Write one block; the service verifies its checksum."""

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> None:
        """Make the blob of these blocks, and drop all others."""

    def discard(self, name: str, blocks: Blocks) -> None:
        """Drop the uncommitted blocks and leave a committed blob as it is."""


class Copy(Protocol):
    """Where each block goes on the way, when copies are kept."""

    def write(self, data: memoryview) -> None:
        """Append. Never fails: a full disk ends the copy, not the upload."""

    def restart(self) -> None:
        """Begin anew."""


@dataclass(frozen=True, slots=True)
class Source:
    """A claimed file, open for reading. `check` looks at it by its name again; `cancelled` tells to give up."""

    fd: int
    look: Look
    blob: str
    session: str
    retried: bool  # an earlier try may have left blocks, or the whole blob
    check: Callable[[], Look]
    cancelled: Callable[[], bool]
    sent: Callable[[int], None]
    copy: Copy | None = None


class Transfer:
    """Sends files. Memory: every byte of content that is held is counted in `memory`, whatever the number of files."""

    def __init__(self, store: BlobStore, memory: Memory, connections: int, *, content_md5: bool) -> None:
        """Blocks of all files share one pool of at most `connections` senders."""
        self.store = store
        self.memory = memory
        self.block_size = memory.block_size
        self.content_md5 = content_md5
        senders = max(1, min(connections, memory.limit // memory.block_size))
        self.window = max(2, senders // 2)  # blocks of one file in flight: two files fill the pool
        self._senders = ThreadPoolExecutor(senders, "sender")
        self._readers = ThreadPoolExecutor(senders, "reader")

    def upload(self, source: Source) -> None:
        """Return when the store has confirmed every block and the commit, or holds this very content already.

        Raises Unsettled, ShortRead, NotEligible, Cancelled, StoreError, OSError.
        """
        if source.retried and self._present(source):
            log.info(names.UPLOAD_PRESENT, extra={"session": source.session, "blob": source.blob})
            source.sent(source.look.size)
        elif source.look.size <= self.block_size:
            self._put(source)
        else:
            _Blockwise(self, source).run()

    def label(self, source: Source, crc: int, digest: bytes | None) -> Label:
        """Return what is written beside the content."""
        look, suffix = source.look, source.blob.rpartition(".")[2]
        return Label(look.size, crc, digest, look.inode, look.mtime_ns, source.session, content_type(suffix))

    def _present(self, source: Source) -> bool:
        stored = self.store.head(source.blob)
        if stored is None or stored.size != source.look.size or stored.crc64 is None:
            return False
        crc, piece = 0, min(MIB, self.block_size)
        with self.memory.held(piece):
            for offset in range(0, source.look.size, piece):
                if source.cancelled():
                    raise Cancelled
                crc = crc64(_read(source, min(piece, source.look.size - offset), offset), crc)
        unchanged(source.look, look_at(source.fd))
        return crc == stored.crc64

    def _put(self, source: Source) -> None:
        size = source.look.size
        with self.memory.held(size):
            data = _read(source, size, 0)
            unchanged(source.look, look_at(source.fd))
            digest = md5(data, usedforsecurity=False).digest() if self.content_md5 else None
            label = self.label(source, crc64(data), digest)
            if source.copy:
                source.copy.write(memoryview(data))
            try:
                self.store.put(source.blob, data, label, None)
            except Overtaken:
                self._replace(source, data, label)
        source.sent(size)
        telemetry.CONTENT_SENT.add(size)
        telemetry.phase(names.COMMITTED)

    def _replace(self, source: Source, data: bytes, label: Label) -> None:
        """Overwrite a blob of this name, unless it is ours already: a lost reply, or another shard's work (I9)."""
        stored = self.store.head(source.blob)
        if stored is None:
            self._put_as_block(source.blob, data, label)
        elif not stored.holds(label):
            unchanged(source.look, source.check())
            self.store.put(source.blob, data, label, stored.etag)

    def _put_as_block(self, name: str, data: bytes, label: Label) -> None:
        """Get past uncommitted blocks: Azurite takes them for a blob that exists, but a commit replaces them."""
        there = self.store.blocks(name)
        ids = [block_id(0, label.crc64, there.id_length(ID_LENGTH))] if data else []
        for each in ids:
            self.store.stage(name, each, memoryview(data), label.crc64)
        self.store.commit(name, ids, label, None)


class _Blockwise:
    """One large file on its way."""

    def __init__(self, transfer: Transfer, source: Source) -> None:
        self.transfer = transfer
        self.source = source
        self.size = block_size(source.look.size, transfer.block_size)
        if self.size > transfer.memory.most:  # waiting for it would never end, and stop all others too
            raise NotEligible(f"so large a file goes in blocks of {self.size} bytes: more than NFS_WATCH_MEMORY")
        self.there = self._list()
        self.id_length = self.there.id_length(ID_LENGTH)
        self.in_flight: list[Future[None]] = []
        self.failed = False
        self.skipped = 0
        self.confirmed = 0

    def run(self) -> None:
        """Send it; recover once from blocks that the store has lost or cannot take."""
        try:
            self._send()
        except (LeftoverBlocks, TooManyBlocks, ExpiredBlocks) as error:
            extra = {"session": self.source.session, "blob": self.source.blob, "error": str(error)}
            log.warning(names.UPLOAD_RECOVERED, extra=extra)
            store = self.transfer.store
            if isinstance(error, TooManyBlocks):
                store.discard(self.source.blob, store.blocks(self.source.blob))
            self.there = self._list()
            self.id_length = self.there.id_length(self.there.committed_id_length(ID_LENGTH))
            if self.id_length < SHORTEST_ID:
                raise
            self.source.sent(-self.confirmed)
            if self.source.copy:
                self.source.copy.restart()
            self._send()

    def _list(self) -> Blocks:
        """List what is there, without leftovers whose ids are too short to tell contents apart (I9)."""
        store, name = self.transfer.store, self.source.blob
        there = store.blocks(name)
        if there.id_length(ID_LENGTH) < SHORTEST_ID:
            store.discard(name, there)
            there = store.blocks(name)
        return there

    def _send(self) -> None:
        source, store = self.source, self.transfer.store
        self.skipped = self.confirmed = 0
        self.failed = False
        ids, label = self._stage_all()
        telemetry.phase(names.STORED, blocks=len(ids), skipped=self.skipped)
        unchanged(source.look, look_at(source.fd))
        unchanged(source.look, source.check())
        if self.skipped:
            extra = {
                "session": source.session,
                "blob": source.blob,
                "blocks": len(ids),
                "skipped": self.skipped,
            }
            log.info(names.UPLOAD_RESUMED, extra=extra)
        try:
            store.commit(source.blob, ids, label, self.there.etag)
        except Overtaken:
            # Our own commit whose reply was lost, or another writer: only the content tells.
            stored = store.head(source.blob)
            if stored is None or not stored.holds(label):
                raise
        telemetry.phase(names.COMMITTED)

    def _stage_all(self) -> tuple[list[str], Label]:
        source, transfer = self.source, self.transfer
        digest = md5(usedforsecurity=False) if transfer.content_md5 else None
        whole, ids = 0, []
        ahead = self._read_ahead(0)
        try:
            for index, offset in enumerate(range(0, source.look.size, self.size)):
                if source.cancelled():
                    raise Cancelled
                self._await(transfer.window - 1)
                buffer, data = ahead.result()
                ahead = self._read_ahead(offset + self.size)
                if digest:
                    digest.update(data)
                crc = crc64(data)
                whole = crc64(data, whole)
                if source.copy:
                    source.copy.write(data)
                ids.append(block_id(index, crc, self.id_length))
                self._hand_over(ids[-1], data, crc, buffer)
            self._await(0)
        finally:
            # Leave no thread behind that still uses our file or our buffers.
            self.failed = bool(self.in_flight)
            wait(self.in_flight)
            self.in_flight.clear()
            if not ahead.exception():  # waits for it
                transfer.memory.give(ahead.result()[0])
        return ids, transfer.label(source, whole, digest.digest() if digest else None)

    def _read_ahead(self, offset: int) -> "Future[tuple[bytearray, memoryview]]":
        """Read the next block while this one is hashed: neither the share nor the processor waits for the other."""
        return self.transfer._readers.submit(self._read_block, offset)  # noqa: SLF001 one module

    def _read_block(self, offset: int) -> tuple[bytearray, memoryview]:
        left = max(0, self.source.look.size - offset)
        buffer = self.transfer.memory.buffer(self.size) if left else bytearray()
        try:
            data = memoryview(buffer)[: min(self.size, left)]
            _fill(self.source, data, offset)
        except BaseException:
            self.transfer.memory.give(buffer)
            raise
        return buffer, data

    def _hand_over(self, name: str, data: memoryview, crc: int, buffer: bytearray) -> None:
        if self.id_length >= ID_LENGTH and self.there.uncommitted.get(name) == len(data):
            self.skipped += 1
            telemetry.BLOCKS_SKIPPED.add(1)
            self._count(len(data))
            self.transfer.memory.give(buffer)
            return
        self.in_flight.append(self.transfer._senders.submit(self._stage, name, data, crc, buffer))  # noqa: SLF001 one module

    def _stage(self, name: str, data: memoryview, crc: int, buffer: bytearray) -> None:
        try:
            if self.failed or self.source.cancelled():
                raise Cancelled
            self.transfer.store.stage(self.source.blob, name, data, crc)
            self._count(len(data))
            telemetry.BLOCKS_SENT.add(1)
            telemetry.CONTENT_SENT.add(len(data))
        finally:
            data.release()
            self.transfer.memory.give(buffer)

    def _count(self, size: int) -> None:
        self.confirmed += size
        self.source.sent(size)

    def _await(self, at_most: int) -> None:
        """Wait until at most so many blocks are in flight. Raises what a sender raised."""
        while len(self.in_flight) > at_most:
            self.in_flight.pop(0).result()


@lru_cache(maxsize=1024)
def content_type(suffix: str) -> str:
    """Guess a blob's content type from the end of its name."""
    kind, packed = mimetypes.guess_type(f"x.{suffix}")
    return kind if kind and not packed else "application/octet-stream"


def block_id(index: int, crc: int, length: int = ID_LENGTH) -> str:
    """Return a block's id. A shorter one than ours is that of a leftover: never trusted, but of one content only."""
    checksum = crc.to_bytes(8, "big")
    if length >= ID_LENGTH:
        raw = (index.to_bytes(4, "big") + checksum).ljust(length, b"\0")
    else:
        raw = (index.to_bytes(2, "big") + checksum).ljust(length, b"\0")[:length]  # MAX_BLOCKS fits
    return b64encode(raw).decode()


def block_size(size: int, wanted: int) -> int:
    """Return the wanted block size, or the number of whole MiB that keeps the file within MAX_BLOCKS."""
    return wanted if size <= MAX_BLOCKS * wanted else -(-size // (MAX_BLOCKS * MIB)) * MIB


def _read(source: Source, size: int, offset: int) -> bytes:
    data = os.pread(source.fd, size, offset)
    if len(data) == size:
        return data
    buffer = bytearray(size)
    _fill(source, memoryview(buffer), offset)
    return bytes(buffer)


def _fill(source: Source, data: memoryview, offset: int) -> None:
    """Read until `data` is full. Raises Unsettled or ShortRead at the end of the file (I2, I3)."""
    done = 0
    while done < len(data):
        count = os.preadv(source.fd, [data[done:]], offset + done)
        if count == 0:
            unchanged(source.look, look_at(source.fd))
            raise ShortRead(f"it ended after {offset + done} of {source.look.size} bytes")
        done += count

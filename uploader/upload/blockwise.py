"""One large file in blocks: read ahead, staged in parallel, resumed at the block, committed once."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from hashlib import md5

from uploader.blob.checksum import crc64, joined
from uploader.blob.store import BlobStore, Committed, Label
from uploader.errors import (
    Cancelled,
    ExpiredBlocks,
    LeftoverBlocks,
    NotEligible,
    Overtaken,
    StoreRefused,
    TooManyBlocks,
)
from uploader.session import now
from uploader.telemetry import instruments, names
from uploader.upload.block import ID_LENGTH, MIB, SHORTEST_ID, Layout, block_id
from uploader.upload.conflict import Place
from uploader.upload.flight import Flight
from uploader.upload.handed import Handed
from uploader.upload.memory import Memory
from uploader.upload.source import Source

log = logging.getLogger(__name__)


class Pools:
    """What the blocks of all large files share: threads, the memory that is held, and what may be under way."""

    def __init__(self, memory: Memory, connections: int) -> None:
        """Start at most `connections` senders, and as many readers."""
        count = max(1, min(connections, memory.limit // memory.block_size))
        self.memory = memory
        self.flight = Flight()
        self.window = max(2, count // 2)  # blocks of one file in flight: two files fill the pool
        self.senders = ThreadPoolExecutor(count, "sender")
        self.readers = ThreadPoolExecutor(count, "reader")


class Blockwise:
    """The upload of one large file."""

    def __init__(self, store: BlobStore, pools: Pools, source: Source, place: Place, *, content_md5: bool) -> None:
        self.store = store
        self.pools = pools
        self.memory = pools.memory
        self.source = source
        self.place = place
        self.content_md5 = content_md5
        self.layout = Layout(source.look.size, self.memory.block_size)
        if self.layout.most > self.memory.most:  # the wait for it would never end, and stop all other files
            raise NotEligible(f"so large a file needs blocks of {self.layout.most} bytes: more than NFS_WATCH_MEMORY")
        self.there = store.blocks(source.blob)
        self.id_length = ID_LENGTH
        self.in_flight: list[Future[None]] = []
        self.failed = False
        self.skipped = 0
        self.confirmed = 0

    def run(self) -> Committed:
        """Send it; recover once from blocks that the store has lost or cannot take."""
        try:
            self._clear()
            self.id_length = self.there.id_length(ID_LENGTH)
            return self._send()
        except (LeftoverBlocks, TooManyBlocks, ExpiredBlocks) as error:
            extra = {"session": self.source.session, "blob": self.source.blob, "error": str(error)}
            if self.source.told.news(names.UPLOAD_RECOVERED, self.source.blob, str(error)):
                log.warning(names.UPLOAD_RECOVERED, extra=extra)
            self.there = self.store.blocks(self.source.blob)
            self._clear(always=isinstance(error, TooManyBlocks))
            self.id_length = self.there.id_length(self.there.committed_id_length(ID_LENGTH))
            if self.id_length < SHORTEST_ID:
                raise
            self.source.sent(-self.confirmed)
            if self.source.copy:
                self.source.copy.restart()
            return self._send()

    def _clear(self, *, always: bool = False) -> None:
        """Drop leftovers whose ids are too short to tell contents apart (I9)."""
        if not always and self.there.id_length(ID_LENGTH) >= SHORTEST_ID:
            return
        store, name = self.store, self.source.blob
        found = store.head(name) if self.there.etag and not self.there.committed else None
        size = found.size if found else 0
        if size > self.memory.most:
            raise StoreRefused(
                f"unusable uncommitted blocks beside a blob without blocks, of {size} bytes: more than "
                "NFS_WATCH_MEMORY; delete the blob"
            )
        with self.memory.held(size):
            store.discard(name, self.there)
        self.there = store.blocks(name)
        if self.there.id_length(ID_LENGTH) < SHORTEST_ID:  # an emulator keeps them, or another tool is at work
            raise StoreRefused("uncommitted blocks with ids of less than 6 bytes cannot be dropped; delete the blob")

    def _send(self) -> Committed:
        source = self.source
        self.skipped = self.confirmed = 0
        self.failed = False
        self.layout.resume(self.there.uncommitted)
        ids, label = self._stage_all()
        instruments.phase(names.STORED, blocks=len(ids), skipped=self.skipped)
        if self.skipped:
            extra = {"session": source.session, "blob": source.blob, "blocks": len(ids), "skipped": self.skipped}
            if source.told.news(names.UPLOAD_RESUMED, source.blob, f"{self.skipped} of {len(ids)}"):
                log.info(names.UPLOAD_RESUMED, extra=extra)
        done = self._commit(ids, label)
        instruments.phase(names.COMMITTED)
        return done

    def _commit(self, ids: list[str], label: Label) -> Committed:
        source, store = self.source, self.store
        etag = None
        if self.there.etag:
            with self.memory.held(self.place.piece):
                room = self.place.make_room(source.read)
            if room.same:
                return self.place.adopt(room.same)
            etag, label = room.etag, replace(label, replaced=room.replaced)
        source.last_look()
        try:
            etag = store.commit(source.blob, ids, label, etag)
        except Overtaken:
            # Either the reply to our own commit was lost, or another writer was first: the content decides.
            stored = store.head(source.blob)
            if stored is None or not stored.holds(label):
                raise
            return self.place.confirmed(stored, label)
        return Committed(label, etag, now(), label.replaced)

    def _stage_all(self) -> tuple[list[str], Label]:
        source = self.source
        digest = md5(usedforsecurity=False) if self.content_md5 else None
        ids: list[str] = []
        whole = offset = 0
        ahead = self._read_ahead(0, 0)
        try:
            while offset < source.look.size:
                if source.cancelled():
                    raise Cancelled
                self._await(self.pools.window - 1)
                buffer, data, crc = ahead.result()
                ahead = self._read_ahead(offset + len(data), len(ids) + 1)
                if digest:
                    digest.update(data)
                whole = joined(whole, crc, len(data))
                place = offset // self.layout.unit if self.id_length >= ID_LENGTH else len(ids)
                ids.append(block_id(place, crc, self.id_length))
                offset += len(data)
                self._hand_over(ids[-1], data, crc, buffer)
            self._await(0)
        finally:
            # No thread may still use our file or our buffers afterwards.
            self.failed = bool(self.in_flight)
            wait(self.in_flight)
            self.in_flight.clear()
            if not ahead.exception():  # waits for it
                self.memory.give(ahead.result()[0])
        return ids, source.label(whole, digest.digest() if digest else None)

    def _read_ahead(self, offset: int, count: int) -> "Future[tuple[bytearray, memoryview, int]]":
        """Read the next block while this one is hashed: neither the share nor the processor waits for the other."""
        left = offset < self.source.look.size
        size = self.layout.length(offset, count, self.pools.flight.wanted) if left else 0
        return self.pools.readers.submit(self._read_block, offset, size)

    def _read_block(self, offset: int, size: int) -> tuple[bytearray, memoryview, int]:
        """Read a block piece by piece: each piece is checksummed and copied while it is in the processor's cache."""
        buffer = self.memory.buffer(size) if size else bytearray()
        crc = 0
        try:
            data = memoryview(buffer)[:size]
            for at in range(0, len(data), MIB):
                piece = data[at : at + MIB]
                self.source.fill(piece, offset + at)
                crc = crc64(piece, crc)
                if self.source.copy:
                    self.source.copy.write(piece)
            self.source.spent(offset + len(data))
        except BaseException:
            self.memory.give(buffer)
            raise
        return buffer, data, crc

    def _hand_over(self, name: str, data: memoryview, crc: int, buffer: bytearray) -> None:
        if self.id_length >= ID_LENGTH and self.there.uncommitted.get(name) == len(data):
            self.skipped += 1
            instruments.BLOCKS_SKIPPED.add(1)
            self.confirmed += len(data)
            self.source.sent(len(data))
            self.memory.give(buffer)
            return
        try:
            self.pools.flight.take(len(data), self.source.cancelled)
        except BaseException:
            self.memory.give(buffer)
            raise
        self.in_flight.append(self.pools.senders.submit(self._stage, name, data, crc, buffer))

    def _stage(self, name: str, data: memoryview, crc: int, buffer: bytearray) -> None:
        size, confirmed, answered = len(data), False, 0.0
        try:
            if self.failed or self.source.cancelled():
                raise Cancelled
            with Handed(self.source, size) as handed:
                self.store.stage(self.source.blob, name, data, crc, handed)
            confirmed, answered = True, handed.answered()
            self.confirmed += size
            instruments.BLOCKS_SENT.add(1)
            instruments.CONTENT_SENT.add(size)
        finally:
            self.pools.flight.give(size, confirmed=confirmed, answered=answered)
            data.release()
            self.memory.give(buffer)

    def _await(self, at_most: int) -> None:
        """Wait until at most `at_most` blocks are in flight. Raises what a sender raised."""
        while len(self.in_flight) > at_most:
            self.in_flight.pop(0).result()

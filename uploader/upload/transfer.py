"""The upload engine: one claimed file into one blob, whole where it is small, in blocks where it is large."""

import logging
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import BlobStore, Committed, Label, Stored
from uploader.errors import Cancelled, Overtaken
from uploader.session import now
from uploader.telemetry import instruments, names
from uploader.upload.block import ID_LENGTH, MIB, block_id
from uploader.upload.blockwise import Blockwise, Pools
from uploader.upload.memory import Memory
from uploader.upload.source import Source

log = logging.getLogger(__name__)


class Transfer:
    """Sends files. `memory` bounds the content of all files together: every byte that is held is counted there."""

    def __init__(self, store: BlobStore, memory: Memory, connections: int, *, content_md5: bool) -> None:
        """Blocks of all files share one pool of at most `connections` senders."""
        self.store = store
        self.memory = memory
        self.block_size = memory.block_size
        self.content_md5 = content_md5
        self._pools = Pools(memory, connections)

    def upload(self, source: Source) -> Committed:
        """Return the blob, when the store has confirmed every block and the commit, or holds this very content.

        Raises Unsettled, ShortRead, NotEligible, Cancelled, StoreError, OSError.
        """
        done = self._present(source) if source.retried else None
        if done:
            log.info(names.UPLOAD_PRESENT, extra={"session": source.session, "blob": source.blob})
            source.sent(source.look.size)
        elif source.look.size <= self.block_size:
            done = self._put(source)
        else:
            done = Blockwise(self.store, self._pools, source, content_md5=self.content_md5).run()
        return done

    def _present(self, source: Source) -> Committed | None:
        stored = self.store.head(source.blob)
        if stored is None or stored.size != source.look.size or stored.crc64 is None:
            return None
        crc, piece = 0, min(MIB, self.block_size)
        with self.memory.held(piece):
            for offset in range(0, source.look.size, piece):
                if source.cancelled():
                    raise Cancelled
                crc = crc64(source.read(min(piece, source.look.size - offset), offset), crc)
        source.file.unchanged()
        label = source.label(crc, stored.md5)
        if not stored.holds(label):
            return None
        return self._adopted(source, stored, label)

    def _adopted(self, source: Source, stored: Stored, label: Label) -> Committed:
        """Have a blob name the file that it was found equal to, which a later process may have to know again."""
        etag = stored.etag if stored.of(label) else self.store.relabel(source.blob, label, stored.etag)
        return Committed(label, etag, stored.modified or now())

    def _put(self, source: Source) -> Committed:
        size = source.look.size
        with self.memory.held(size):
            data = source.read(size, 0)
            source.file.unchanged()
            digest = md5(data, usedforsecurity=False).digest() if self.content_md5 else None
            label = source.label(crc64(data), digest)
            if source.copy:
                source.copy.write(memoryview(data))
            try:
                done = Committed(label, self.store.put(source.blob, data, label, None), now())
            except Overtaken:
                done = self._replaced(source, data, label)
        source.sent(size)
        instruments.CONTENT_SENT.add(size)
        instruments.phase(names.COMMITTED)
        return done

    def _replaced(self, source: Source, data: bytes, label: Label) -> Committed:
        """Overwrite a blob of this name, unless a lost reply or another shard (I9) has put our content there."""
        stored = self.store.head(source.blob)
        if stored is None:
            return Committed(label, self._put_as_block(source.blob, data, label), now())
        if stored.holds(label):
            return self._adopted(source, stored, label)
        source.last_look()
        return Committed(label, self.store.put(source.blob, data, label, stored.etag), now())

    def _put_as_block(self, name: str, data: bytes, label: Label) -> str:
        """Replace uncommitted blocks by a commit: Azurite takes such blocks for a blob that exists."""
        there = self.store.blocks(name)
        ids = [block_id(0, label.crc64, there.id_length(ID_LENGTH))] if data else []
        for each in ids:
            self.store.stage(name, each, memoryview(data), label.crc64)
        return self.store.commit(name, ids, label, None)

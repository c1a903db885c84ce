"""The upload engine: one claimed file into one blob, whole where it is small, in blocks where it is large."""

import logging
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import BlobStore, Label
from uploader.errors import Cancelled, Overtaken
from uploader.share.fingerprint import unchanged
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

    def upload(self, source: Source) -> None:
        """Return when the store has confirmed every block and the commit, or has this very content already.

        Raises Unsettled, ShortRead, NotEligible, Cancelled, StoreError, OSError.
        """
        if source.retried and self._present(source):
            log.info(names.UPLOAD_PRESENT, extra={"session": source.session, "blob": source.blob})
            source.sent(source.look.size)
        elif source.look.size <= self.block_size:
            self._put(source)
        else:
            Blockwise(self.store, self._pools, source, content_md5=self.content_md5).run()

    def _present(self, source: Source) -> bool:
        stored = self.store.head(source.blob)
        if stored is None or stored.size != source.look.size or stored.crc64 is None:
            return False
        crc, piece = 0, min(MIB, self.block_size)
        with self.memory.held(piece):
            for offset in range(0, source.look.size, piece):
                if source.cancelled():
                    raise Cancelled
                crc = crc64(source.read(min(piece, source.look.size - offset), offset), crc)
        source.unchanged()
        return crc == stored.crc64

    def _put(self, source: Source) -> None:
        size = source.look.size
        with self.memory.held(size):
            data = source.read(size, 0)
            source.unchanged()
            digest = md5(data, usedforsecurity=False).digest() if self.content_md5 else None
            label = source.label(crc64(data), digest)
            if source.copy:
                source.copy.write(memoryview(data))
            try:
                self.store.put(source.blob, data, label, None)
            except Overtaken:
                self._replace(source, data, label)
        source.sent(size)
        instruments.CONTENT_SENT.add(size)
        instruments.phase(names.COMMITTED)

    def _replace(self, source: Source, data: bytes, label: Label) -> None:
        """Overwrite a blob of this name, unless a lost reply or another shard (I9) has put our content there."""
        stored = self.store.head(source.blob)
        if stored is None:
            self._put_as_block(source.blob, data, label)
        elif not stored.holds(label):
            unchanged(source.look, source.check())
            self.store.put(source.blob, data, label, stored.etag)

    def _put_as_block(self, name: str, data: bytes, label: Label) -> None:
        """Replace uncommitted blocks by a commit: Azurite takes such blocks for a blob that exists."""
        there = self.store.blocks(name)
        ids = [block_id(0, label.crc64, there.id_length(ID_LENGTH))] if data else []
        for each in ids:
            self.store.stage(name, each, memoryview(data), label.crc64)
        self.store.commit(name, ids, label, None)

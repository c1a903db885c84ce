"""The upload engine: one claimed file into one blob, whole where it is small, in blocks where it is large."""

import logging
from dataclasses import replace
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import BlobStore, Committed, Label
from uploader.errors import Overtaken
from uploader.session import now
from uploader.telemetry import instruments, names
from uploader.upload.block import ID_LENGTH, block_id
from uploader.upload.blockwise import Blockwise, Pools
from uploader.upload.conflict import Place, Policy
from uploader.upload.handed import Handed
from uploader.upload.memory import Memory
from uploader.upload.source import Source

log = logging.getLogger(__name__)


class Transfer:
    """Sends files. `memory` bounds the content of all files together: every byte that is held is counted there."""

    def __init__(
        self,
        store: BlobStore,
        memory: Memory,
        connections: int,
        *,
        content_md5: bool,
        on_conflict: Policy = "snapshot",
    ) -> None:
        """Blocks of all files share one pool of at most `connections` senders."""
        self.store = store
        self.memory = memory
        self.block_size = memory.block_size
        self.content_md5 = content_md5
        self.on_conflict = on_conflict
        self._pools = Pools(memory, connections)

    def upload(self, source: Source) -> Committed:
        """Return what the store has confirmed: every block and the commit, or that it holds this very content.

        Raises Unsettled, ShortRead, NotEligible, Conflict, Cancelled, StoreError, OSError.
        """
        place = Place(self.store, source, self.on_conflict, self.block_size)
        if source.retried and (done := self._present(source, place)):
            return done
        if source.look.size <= self.block_size:
            return self._put(source, place)
        blocks = Blockwise(self.store, self._pools, source, place, content_md5=self.content_md5)
        # Before gigabytes are sent that are there, or are refused.
        if blocks.there.etag and not source.retried and (done := self._present(source, place)):
            return done
        return blocks.run()

    def _present(self, source: Source, place: Place) -> Committed | None:
        with self.memory.held(place.piece):
            room = place.look(source.read)
        source.file.unchanged()
        if room.same is None:
            return None
        done = place.adopt(room.same)
        if source.told.news(names.UPLOAD_PRESENT, source.blob, done.etag):
            log.info(names.UPLOAD_PRESENT, extra={"session": source.session, "blob": source.blob})
        source.sent(source.look.size)
        return done

    def _put(self, source: Source, place: Place) -> Committed:
        size = source.look.size
        with self.memory.held(size):
            data = source.read(size, 0)
            source.file.unchanged()
            digest = md5(data, usedforsecurity=False).digest() if self.content_md5 else None
            label = source.label(crc64(data), digest)
            if source.copy:
                source.copy.write(memoryview(data))
            with Handed(source, size) as handed:
                try:
                    done = Committed(label, self.store.put(source.blob, data, label, None, handed), now())
                except Overtaken:
                    done = self._replaced(source, place, data, label, handed)
        instruments.CONTENT_SENT.add(size)
        instruments.phase(names.COMMITTED)
        return done

    def _replaced(self, source: Source, place: Place, data: bytes, label: Label, handed: Handed) -> Committed:
        """Replace a blob of this name, unless a lost reply or another shard (I9) has put our content there."""
        room = place.make_room(lambda size, offset: data[offset : offset + size])
        if room.same:
            return place.adopt(room.same)
        if room.etag is None:
            return Committed(label, self._put_as_block(source.blob, data, label), now())
        source.last_look()
        label = replace(label, replaced=room.replaced)
        etag = self.store.put(source.blob, data, label, room.etag, handed)
        return Committed(label, etag, now(), room.replaced)

    def _put_as_block(self, name: str, data: bytes, label: Label) -> str:
        """Replace uncommitted blocks by a commit: Azurite takes such blocks for a blob that exists."""
        there = self.store.blocks(name)
        ids = [block_id(0, label.crc64, there.id_length(ID_LENGTH))] if data else []
        for each in ids:
            self.store.stage(name, each, memoryview(data), label.crc64)
        return self.store.commit(name, ids, label, None)

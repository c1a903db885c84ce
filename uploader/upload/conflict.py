"""What lies under a blob's name already, and what becomes of it: other content never vanishes without a trace (I12).

The content decides, also where it was this very file that held another one. The same content: nothing is written. The
beginning of this file: replaced. Anything else is a conflict, for which there is `NFS_WATCH_ON_CONFLICT`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import md5
from typing import Literal

from uploader.blob.checksum import Content, crc64
from uploader.blob.store import KEPT, VERSION, BlobStore, Committed, Label, Replaced, Stored, rfc3339
from uploader.errors import Cancelled, Conflict, StoreRefused
from uploader.session import now
from uploader.upload.block import MIB
from uploader.upload.source import Source

Policy = Literal["snapshot", "replace", "refuse"]
Read = Callable[[int, int], Content]
"""Returns so many bytes of the file, from this offset."""


class Kind(Enum):
    """How a blob's content and a file's are related."""

    SAME = auto()
    GROWN = auto()  # the blob holds the beginning of the file
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Room:
    """A name that may be written. `etag`: the write's condition, None: there must be no blob.

    `same`: the blob, when it holds this very content and nothing is to be written.
    """

    etag: str | None = None
    replaced: Replaced | None = None
    same: Stored | None = None
    conflict: bool = False


class Place:
    """The name in the store that a file is to take."""

    def __init__(self, store: BlobStore, source: Source, policy: Policy, piece: int) -> None:
        """`piece`: bytes that are read and held at once."""
        self.store = store
        self.source = source
        self.policy = policy
        self.piece = min(MIB, piece)
        self.crc64 = 0  # of the whole file, once the content was found to be the same
        self._known: tuple[str, Kind] | None = None  # by the blob's etag

    def look(self, read: Read) -> Room:
        """Look what is there, and change nothing. Raises Conflict when this file is refused; Cancelled, StoreError."""
        stored = self.store.head(self.source.blob)
        return self._judged(stored, read) if stored else Room()

    def make_room(self, read: Read) -> Room:
        """Look just before the write; what would be lost is kept first. Raises as `look`."""
        stored = self.store.head(self.source.blob)
        room = self._judged(stored, read) if stored else Room()
        if stored and room.conflict and self.policy == "snapshot":
            return self._kept(stored)
        return room

    def adopt(self, stored: Stored) -> Committed:
        """Have a blob name the file that it was found equal to, which a later process may have to know again.

        What another tool wrote is left as it is. Raises StoreError.
        """
        label = self.source.label(self.crc64, stored.md5)
        if stored.crc64 is None:
            return Committed(label, stored.etag, stored.modified or now())
        return self.confirmed(stored, label)

    def confirmed(self, stored: Stored, label: Label) -> Committed:
        """Return what the store has of a file whose content it holds; it names this file from now on."""
        at = stored.modified or now()
        if not stored.of(label):
            return Committed(label, self.store.relabel(self.source.blob, label, stored.etag), at)
        if stored.metadata.get("mtime") != rfc3339(label.mtime_ns):  # or a file that had its inode and was deleted
            label = replace(label, replaced=stored.replaced)
            return Committed(label, self.store.relabel(self.source.blob, label, stored.etag), at, stored.replaced)
        return Committed(label, stored.etag, at, stored.replaced)

    def _judged(self, stored: Stored, read: Read) -> Room:
        kind = self._compare(stored, read)
        if kind is Kind.OTHER and self.policy == "refuse":
            raise Conflict(f"other content of {stored.size} bytes is in the store under this name: refused")
        if kind is Kind.OTHER:
            return Room(stored.etag, Replaced(stored.version, stored.metadata.get(KEPT)), conflict=True)
        # A commit's lost reply, or the same file when it was shorter: what that has replaced, this has.
        before = stored.replaced if self._very_file(stored) else None
        return Room(stored.etag, before, same=stored if kind is Kind.SAME else None)

    def _very_file(self, stored: Stored) -> bool:
        born = self.source.file.born()
        mine = (str(self.source.look.inode), None if born is None else str(born))
        return mine == (stored.inode, stored.born)

    def _compare(self, stored: Stored, read: Read) -> Kind:
        if self._known is None or self._known[0] != stored.etag:
            self._known = stored.etag, self._kind(stored, read)
        return self._known[1]

    def _kind(self, stored: Stored, read: Read) -> Kind:
        size = self.source.look.size
        if stored.size > size or not self._begins(stored, read):
            return Kind.OTHER
        return Kind.SAME if stored.size == size else Kind.GROWN

    def _begins(self, stored: Stored, read: Read) -> bool:
        """Tell whether the file's beginning is what the blob holds: by our CRC64, else by the MD5."""
        if stored.crc64 is None and stored.md5 is None:
            return False
        crc, digest = 0, md5(usedforsecurity=False)
        for offset in range(0, stored.size, self.piece):
            if self.source.cancelled():
                raise Cancelled
            data = read(min(self.piece, stored.size - offset), offset)
            crc = crc64(data, crc)
            if stored.crc64 is None:
                digest.update(data)
            self.source.spent(offset + len(data))
        self.crc64 = crc
        return crc == stored.crc64 if stored.crc64 is not None else digest.digest() == stored.md5

    def _kept(self, stored: Stored) -> Room:
        """Keep the blob as a snapshot, one for each content, whoever dies or sleeps meanwhile (docs/decisions.md).

        A new etag makes every snapshot fail that anybody has begun; then the list is all there is and will be.
        """
        store, name, said = self.store, self.source.blob, {**stored.metadata, VERSION: stored.version}
        try:
            kept = stored.metadata.get(KEPT)
            if kept and (there := store.head(name, kept)) and there.same(stored):  # somebody may have deleted it
                return Room(stored.etag, Replaced(stored.version, kept))
            etag = store.annotate(name, said, stored.etag)
            known = store.snapshots(name)
            snapshot = next((one for one in known if known[one].same(stored)), None) or store.snapshot(name, etag)
            etag = store.annotate(name, said | {KEPT: snapshot}, etag)
        except StoreRefused as error:
            raise Conflict(
                f"other content of {stored.size} bytes is in the store under this name, and cannot be kept as a "
                f"snapshot: {error}; NFS_WATCH_ON_CONFLICT can be replace or refuse"
            ) from error
        return Room(etag, Replaced(stored.version, snapshot))

"""The seam to the blob store: the calls that the engine needs, and what passes through them."""

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from uploader.blob.checksum import crc64_header

FIRST_SECOND, LAST_SECOND = -30_610_224_000, 253_402_300_799  # 1000-01-01T00:00:00Z, 9999-12-31T23:59:59Z


# What is written on a blob before it is replaced: names that no other tool has, for they decide what is kept.
VERSION = "nfswatchversion"
KEPT = "nfswatchkept"


@dataclass(frozen=True, slots=True)
class Replaced:
    """Other content that was replaced: its etag without the quotes, and its snapshot's id; None: it was not kept."""

    etag: str
    snapshot: str | None


@dataclass(frozen=True, slots=True)
class Label:
    """What goes with a blob: `crc64` of the whole content, `md5` of it or None, the source, and what it replaced.

    `inode` and `born`, its birth time in ns or None, tell a later process whether a file is the very one that was sent.
    """

    size: int
    crc64: int
    md5: bytes | None
    inode: int
    born: int | None
    mtime_ns: int
    session: str
    content_type: str
    replaced: Replaced | None = None

    def metadata(self) -> dict[str, str]:
        """Return the blob's metadata."""
        said = {
            "crc64": crc64_header(self.crc64),
            "mtime": rfc3339(self.mtime_ns),
            "inode": str(self.inode),
            "session": self.session,
        }
        if self.born is not None:
            said["born"] = str(self.born)
        if self.replaced:
            said["replaced"] = self.replaced.etag
            if self.replaced.snapshot:
                said["snapshot"] = self.replaced.snapshot
        return said


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed blob or a snapshot, as the store describes it.

    What another tool wrote may lack crc64, md5, inode and born. `metadata`: all of it, to be written back as it was.
    `modified`: RFC 3339 in UTC, None when the store does not tell.
    """

    size: int
    etag: str
    crc64: int | None
    md5: bytes | None
    inode: str | None
    born: str | None
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    modified: str | None = None

    @property
    def version(self) -> str:
        """What names this content for good: its first etag, without quotes, which a change of the metadata replaces."""
        return self.metadata.get(VERSION) or self.etag.strip('"')

    @property
    def replaced(self) -> Replaced | None:
        """What it replaced, as far as it says so."""
        etag = self.metadata.get("replaced")
        return Replaced(etag, self.metadata.get("snapshot")) if etag else None

    def same(self, other: "Stored") -> bool:
        """Tell whether both have the same content: by what both have of CRC64, MD5 and version, in this order."""
        if self.size != other.size:
            return False
        if self.crc64 is not None and other.crc64 is not None:
            return self.crc64 == other.crc64
        if self.md5 and other.md5:
            return self.md5 == other.md5
        return self.version == other.version

    def holds(self, label: Label) -> bool:
        """Tell whether the blob has the content that the label describes."""
        return self.size == label.size and self.crc64 == label.crc64

    def of(self, label: Label) -> bool:
        """Tell whether it names the file of this label as its source."""
        said = label.metadata()
        return (self.inode, self.born) == (said["inode"], said.get("born"))


@dataclass(frozen=True, slots=True)
class Committed:
    """What the store has confirmed of a file. `at`: when, RFC 3339 in UTC.

    `replaced`: other content that was under its name, None: none was.
    """

    label: Label
    etag: str
    at: str
    replaced: Replaced | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """A blob's blocks: bytes of the uncommitted ones by id, ids of the committed ones, and its etag if committed."""

    uncommitted: dict[str, int]
    committed: list[str]
    etag: str | None

    def id_length(self, otherwise: int) -> int:
        """Return the bytes of an uncommitted block's id, which all have the same length, else `otherwise`."""
        return next((len(b64decode(block_id)) for block_id in self.uncommitted), otherwise)

    def committed_id_length(self, otherwise: int) -> int:
        """Return the bytes of a committed block's id, else `otherwise`."""
        return next((len(b64decode(block_id)) for block_id in self.committed), otherwise)


Meter = Callable[[int], None]
"""Gets the bytes of a body that this try has handed over so far, 0 when it failed. What it raises ends the try."""


class BlobStore(Protocol):
    """What the engine needs of a store. Every call may raise StoreError; `etag` None: the blob must not exist yet.

    A write whose condition does not hold raises Overtaken and changes nothing.
    """

    def head(self, name: str, snapshot: str = "") -> Stored | None:
        """Describe a committed blob, or its snapshot of this id; None when there is none."""

    def put(self, name: str, data: bytes, label: Label, etag: str | None, meter: Meter | None = None) -> str:
        """Write a whole blob and return its etag; the service verifies its checksum."""

    def blocks(self, name: str) -> Blocks:
        """List the blob's blocks; no blocks when the blob does not exist."""

    def stage(self, name: str, block_id: str, data: memoryview, crc: int, meter: Meter | None = None) -> None:
        """Write one block; the service verifies its checksum."""

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        """Make the blob of these blocks and return its etag; drop all other blocks."""

    def relabel(self, name: str, label: Label, etag: str) -> str:
        """Write what is kept beside a committed blob's content anew: the metadata only. Return the new etag."""

    def annotate(self, name: str, metadata: Mapping[str, str], etag: str) -> str:
        """Write a committed blob's metadata anew, and return the new etag."""

    def snapshot(self, name: str, etag: str) -> str:
        """Keep a committed blob as it is in a snapshot; return its id. Never repeated: there could be two of them."""

    def snapshots(self, name: str) -> Mapping[str, Stored]:
        """Return a blob's snapshots by id; none where the credentials may not list."""

    def below(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        """Yield the committed blobs whose names begin so. Raises ListRefused where the credentials may not list."""

    def discard(self, name: str, blocks: Blocks) -> None:
        """Drop the uncommitted blocks and leave a committed blob as it is. One without blocks is held in memory."""


def rfc3339(time_ns: int) -> str:
    """Return a time in ns as RFC 3339 in UTC with nine digits of a second, so that it sorts and loses nothing.

    A file may have any time; a time outside the years 1000 to 9999 becomes their first or last second.
    """
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    seconds = min(max(seconds, FIRST_SECOND), LAST_SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{fraction:09d}Z"

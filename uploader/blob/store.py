"""The seam to the blob store: the calls that the engine needs, and what passes through them."""

from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from uploader.blob.checksum import crc64_header

FIRST_SECOND, LAST_SECOND = -30_610_224_000, 253_402_300_799  # 1000-01-01T00:00:00Z, 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True)
class Label:
    """What goes with a blob: `crc64` of the whole content, `md5` of it or None, and the source.

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

    def metadata(self) -> dict[str, str]:
        """Return the blob's metadata."""
        born = {} if self.born is None else {"born": str(self.born)}
        return born | {
            "crc64": crc64_header(self.crc64),
            "mtime": rfc3339(self.mtime_ns),
            "inode": str(self.inode),
            "session": self.session,
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """A committed blob, as the store describes it. What another tool wrote may lack crc64, md5, inode and born.

    `modified`: RFC 3339 in UTC, None when the store does not tell.
    """

    size: int
    etag: str
    crc64: int | None
    md5: bytes | None
    inode: str | None
    born: str | None

    modified: str | None = None

    def holds(self, label: Label) -> bool:
        """Tell whether the blob has the content that the label describes."""
        return self.size == label.size and self.crc64 == label.crc64

    def of(self, label: Label) -> bool:
        """Tell whether it names the file of this label as its source."""
        said = label.metadata()
        return (self.inode, self.born) == (said["inode"], said.get("born"))


@dataclass(frozen=True, slots=True)
class Committed:
    """A blob that the store has confirmed. `at`: RFC 3339 in UTC; `replaced`: what was there before, or None."""

    label: Label
    etag: str
    at: str
    replaced: str | None = None


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


class BlobStore(Protocol):
    """What the engine needs of a store. Every call may raise StoreError; `etag` None: the blob must not exist yet.

    A write whose condition does not hold raises Overtaken and changes nothing.
    """

    def head(self, name: str) -> Stored | None:
        """Describe a committed blob, None when there is none."""

    def put(self, name: str, data: bytes, label: Label, etag: str | None) -> str:
        """Write a whole blob and return its etag; the service verifies its checksum."""

    def blocks(self, name: str) -> Blocks:
        """List the blob's blocks; no blocks when the blob does not exist."""

    def stage(self, name: str, block_id: str, data: memoryview, crc: int) -> None:
        """Write one block; the service verifies its checksum."""

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        """Make the blob of these blocks and return its etag; drop all other blocks."""

    def relabel(self, name: str, label: Label, etag: str) -> str:
        """Write what is kept beside a committed blob's content anew: the metadata only. Return the new etag."""

    def discard(self, name: str, blocks: Blocks) -> None:
        """Drop the uncommitted blocks and leave a committed blob as it is."""


def rfc3339(time_ns: int) -> str:
    """Return a time in ns as RFC 3339 in UTC with nine digits of a second, so that it sorts and loses nothing.

    A file may have any time; a time outside the years 1000 to 9999 becomes their first or last second.
    """
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    seconds = min(max(seconds, FIRST_SECOND), LAST_SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{fraction:09d}Z"

"""What the endpoint holds: containers, blobs, committed and uncommitted blocks, with the service's own rules.

Rules: https://learn.microsoft.com/rest/api/storageservices/put-block and put-block-list, put-blob, get-block-list.
"""

import base64
import binascii
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

UNCOMMITTED_LIMIT = 100_000
COMMITTED_LIMIT = 50_000
ID_LIMIT = 64

Source = Literal["Latest", "Committed", "Uncommitted"]


class Refused(Exception):
    """The service refuses: status, error code, text."""

    def __init__(
        self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None, names: str = ""
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status, self.code, self.message = status, code, message or code
        self.headers = dict(headers or {})
        self.names = names


@dataclass(frozen=True)
class Block:
    """One block; `data` is None when the store keeps checksums only."""

    name: str
    length: int
    crc64: int
    data: bytes | bytearray | None


@dataclass
class Blob:
    """One name: its committed content, if any, and its uncommitted blocks."""

    committed: list[Block] | None = None
    uncommitted: dict[str, Block] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    modified: float = 0.0
    snapshots: dict[str, "Blob"] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return sum(block.length for block in self.committed or [])

    @property
    def content(self) -> bytes:
        """The committed bytes; fails when the store keeps checksums only."""
        parts = [block.data for block in self.committed or []]
        assert None not in parts, "this store keeps no bytes"
        return b"".join(part for part in parts if part is not None)


class Store:
    """All containers of one account. Every method is one atomic step."""

    def __init__(self, *, uncommitted_limit: int = UNCOMMITTED_LIMIT, keep_bytes: bool = True) -> None:
        self.uncommitted_limit = uncommitted_limit
        self.keep_bytes = keep_bytes
        self.page = 5000
        """Entries in one page of a list."""
        self._containers: dict[str, dict[str, Blob]] = {}
        self._deleting: dict[str, float] = {}
        self._etags = itertools.count(1)
        self._lock = threading.RLock()

    def create(self, container: str) -> None:
        """Create a container; 409 when it is there or still being deleted."""
        with self._lock:
            if self._deleting.get(container, 0) > time.monotonic():
                raise Refused(409, "ContainerBeingDeleted")
            if container in self._containers:
                raise Refused(409, "ContainerAlreadyExists")
            self._containers[container] = {}

    def drop(self, container: str, being_deleted: float = 0) -> None:
        """Delete a container; its name stays taken for this many seconds."""
        with self._lock:
            self.container(container)
            del self._containers[container]
            self._deleting[container] = time.monotonic() + being_deleted

    def container(self, name: str) -> dict[str, Blob]:
        """Return a container's blobs, the uncommitted ones included."""
        with self._lock:
            if name not in self._containers:
                raise Refused(404, "ContainerNotFound")
            return self._containers[name]

    def blob(self, container: str, name: str) -> Blob:
        """Return a committed blob."""
        with self._lock:
            blob = self.container(container).get(name)
            if blob is None or blob.committed is None:
                raise Refused(404, "BlobNotFound")
            return blob

    def blobs(self, container: str) -> dict[str, Blob]:
        """Return the committed blobs of a container."""
        with self._lock:
            return {name: blob for name, blob in self.container(container).items() if blob.committed is not None}

    def block_list(self, container: str, name: str) -> Blob:
        """Return a blob that has committed or uncommitted blocks."""
        with self._lock:
            blob = self.container(container).get(name)
            if blob is None or (blob.committed is None and not blob.uncommitted):
                raise Refused(404, "BlobNotFound")
            return blob

    def put_block(self, container: str, name: str, block: Block) -> None:
        """Add or replace an uncommitted block."""
        length = _id_length(block.name)
        with self._lock:
            blob = self.container(container).setdefault(name, Blob())
            if blob.uncommitted and _id_length(next(iter(blob.uncommitted))) != length:
                raise Refused(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.")
            if block.name not in blob.uncommitted and len(blob.uncommitted) >= self.uncommitted_limit:
                raise Refused(
                    409,
                    "BlockCountExceedsLimit",
                    "The uncommitted block count cannot exceed the maximum limit.",
                )
            blob.uncommitted[block.name] = block

    def put_blob(
        self, container: str, name: str, block: Block, headers: Mapping[str, str], metadata: Mapping[str, str]
    ) -> Blob:
        """Replace a blob by one body; its uncommitted blocks are dropped."""
        with self._lock:
            blob = self.container(container).setdefault(name, Blob())
            return self._commit(blob, [block], headers, metadata)

    def put_block_list(
        self,
        container: str,
        name: str,
        wanted: Iterable[tuple[Source, str]],
        headers: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> Blob:
        """Commit this list; uncommitted blocks that it leaves out are dropped."""
        with self._lock:
            blob = self.container(container).get(name) or Blob()
            blocks = list(_chosen(blob, wanted))
            if len(blocks) > COMMITTED_LIMIT:
                raise Refused(400, "BlockListTooLong")
            self.container(container)[name] = blob
            return self._commit(blob, blocks, headers, metadata)

    def set_metadata(self, container: str, name: str, metadata: Mapping[str, str]) -> Blob:
        """Replace what is kept beside a committed blob's content."""
        with self._lock:
            blob = self.blob(container, name)
            blob.metadata = dict(metadata)
            blob.etag, blob.modified = f'"0x{next(self._etags):015X}"', time.time()
            return blob

    def snapshot(self, container: str, name: str, metadata: Mapping[str, str]) -> tuple[str, Blob]:
        """Keep the committed blob as it is; without metadata of its own the snapshot has the blob's, and its etag."""
        with self._lock:
            blob = self.blob(container, name)
            number = next(self._etags)
            kept = replace(blob, uncommitted={}, metadata=dict(blob.metadata), snapshots={})
            if metadata:
                kept = replace(kept, metadata=dict(metadata), etag=f'"0x{number:015X}"')
            blob.snapshots[made := f"2026-01-01T00:00:00.{number:07d}Z"] = kept
            return made, kept

    def kept(self, container: str, name: str) -> dict[str, bytes]:
        """Return the content of a blob's snapshots, by id."""
        with self._lock:
            return {made: kept.content for made, kept in self.blob(container, name).snapshots.items()}

    def delete(self, container: str, name: str) -> None:
        """Delete a committed blob. Its uncommitted blocks stay."""
        with self._lock:
            blob = self.blob(container, name)
            if blob.snapshots:
                raise Refused(409, "SnapshotsPresent")
            blob.committed = None

    def expire(self) -> None:
        """Drop every uncommitted block now, as the service does after a week."""
        with self._lock:
            for blobs in self._containers.values():
                for blob in blobs.values():
                    blob.uncommitted.clear()

    def _commit(self, blob: Blob, blocks: list[Block], headers: Mapping[str, str], metadata: Mapping[str, str]) -> Blob:
        blob.committed = blocks
        blob.uncommitted = {}
        blob.headers, blob.metadata = dict(headers), dict(metadata)
        blob.etag, blob.modified = f'"0x{next(self._etags):015X}"', time.time()
        return blob


def _id_length(name: str) -> int:
    try:
        length = len(base64.b64decode(name, validate=True))
    except binascii.Error as error:
        raise Refused(400, "InvalidQueryParameterValue", "blockid is not base64") from error
    if not 0 < length <= ID_LIMIT:
        raise Refused(400, "OutOfRangeInput", "blockid is empty or too long")
    return length


def _chosen(blob: Blob, wanted: Iterable[tuple[Source, str]]) -> Iterator[Block]:
    committed = {block.name: block for block in blob.committed or []}
    sources = {
        "Committed": [committed],
        "Uncommitted": [blob.uncommitted],
        "Latest": [blob.uncommitted, committed],
    }
    for source, name in wanted:
        found = next((blocks[name] for blocks in sources[source] if name in blocks), None)
        if found is None:
            raise Refused(400, "InvalidBlockList", "The specified block list is invalid.")
        yield found

"""The end of a session's receipts: all of them become one blob, which is verified before the journals go."""

import gzip
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5
from io import BytesIO
from typing import Any

import orjson

from uploader.blob.checksum import crc64, joined
from uploader.blob.store import BlobStore, Label
from uploader.errors import Overtaken, StoreRefused
from uploader.session import Session
from uploader.sweep.receipts import Receipts, distinct

BLOCK = 1024 * 1024  # bytes; 50,000 blocks of packed receipts are some 10^9 files


@dataclass
class Sealed:
    """What a session's receipts say; `blob`: where they are, None when there are none; `sizes`: the journals read."""

    sizes: dict[str, int]
    blob: str | None = None
    files: int = 0
    bytes: int = 0
    replaced: int = 0


def seal(receipts: Receipts, session: Session, prefix: str, store: BlobStore) -> Sealed:
    """Put a session's receipts into the store. Raises OSError, StoreError. Memory: BLOCK, and what reading takes."""
    journals = receipts.of(session.name)
    sealed = Sealed(journals.sizes())
    if not sealed.sizes:
        return sealed
    name = f"{prefix}{session.name}/.receipts/{session.started_at}.jsonl.gz"
    upload = _Upload(store, name)
    for block in _packed(distinct(lambda: journals.lines(sealed.sizes)), sealed):
        upload.add(block)
    if sealed.files:
        upload.commit(session.name)
        sealed.blob = name
    return sealed


def _packed(lines: Iterator[dict[str, object]], sealed: Sealed) -> Iterator[bytes]:
    """Yield gzip's output in blocks, the same for the same lines; count what the lines say."""
    out = BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
        for one in lines:
            size = one["size"]
            sealed.files += 1
            sealed.bytes += size if isinstance(size, int) else 0
            sealed.replaced += one.get("replaced") is not None
            packed.write(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE))
            if out.tell() >= BLOCK:
                yield out.getvalue()
                out.seek(0)
                out.truncate()
    yield out.getvalue()


@dataclass
class _Upload:
    store: BlobStore
    name: str
    ids: list[str] = field(default_factory=list)
    size: int = 0
    crc: int = 0
    digest: Any = field(default_factory=lambda: md5(usedforsecurity=False))

    def add(self, data: bytes) -> None:
        """Stage one block, whose checksum the service verifies."""
        crc = crc64(data)
        self.crc = joined(self.crc, crc, len(data))
        self.size += len(data)
        self.digest.update(data)
        self.ids.append(_id(len(self.ids), crc))
        self.store.stage(self.name, self.ids[-1], memoryview(data), crc)

    def commit(self, session: str) -> None:
        """Make the blob; it may be there from a process that was killed then. Raises StoreError."""
        digest = self.digest.digest()
        label = Label(self.size, self.crc, digest, 0, None, 0, session, "application/gzip")
        before = self.store.head(self.name)
        if before is None or not before.holds(label):
            with suppress(Overtaken):  # our own commit, whose reply was lost, or another process's: looked at below
                self.store.commit(self.name, self.ids, label, before.etag if before else None)
        now = self.store.head(self.name)
        if now is None or not now.holds(label):
            raise StoreRefused(f"{self.name} is not what was sent")


def _id(index: int, crc: int) -> str:
    return b64encode(index.to_bytes(4, "big") + crc.to_bytes(8, "big")).decode()

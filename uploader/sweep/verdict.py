"""Whether a `.completed` file is in the store: a file that cannot be proven to be there is kept (I1)."""

import os
from enum import Enum, auto
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import BlobStore, Stored
from uploader.share.claim import Claim
from uploader.share.fingerprint import Fingerprint, read

CHUNK = 1024 * 1024  # bytes a read


class Verdict(Enum):
    """What comparing a `.completed` file with the store has shown."""

    PROVEN = auto()  # its content is in the store
    CHANGED = auto()  # the very file that was sent, but written to afterwards
    UNPROVEN = auto()  # cannot be proven to be in the store: kept


def judge(
    claim: Claim, committed: Fingerprint | None, store: BlobStore, blob: str | None
) -> tuple[Verdict, Fingerprint]:
    """Compare the file with `committed`, its fingerprint when this process sent it, else with the blob.

    `blob` is None when no blob can have its name. Returns the file's fingerprint as well. Raises OSError, FileError.
    """
    fd, current = read(claim.folder, claim.completed)
    try:
        if committed and committed.inode == current.inode:
            return (Verdict.PROVEN if committed.same(current) else Verdict.CHANGED), current
        stored = store.head(blob) if blob else None
        if stored is None:
            return Verdict.UNPROVEN, current
        if stored.size == current.size and _matches(fd, stored):
            return Verdict.PROVEN, current
        same_file = stored.inode == str(current.inode)
        return (Verdict.CHANGED if same_file else Verdict.UNPROVEN), current
    finally:
        os.close(fd)


def _matches(fd: int, stored: Stored) -> bool:
    """Compare a file of the blob's length with its CRC64, else with its MD5. False when the blob has neither."""
    digest, crc, offset = md5(usedforsecurity=False), 0, 0
    if stored.crc64 is None and stored.md5 is None:
        return False
    while data := os.pread(fd, CHUNK, offset):
        offset += len(data)
        if stored.crc64 is not None:
            crc = crc64(data, crc)
        else:
            digest.update(data)
    if offset != stored.size:
        return False
    return crc == stored.crc64 if stored.crc64 is not None else digest.digest() == stored.md5

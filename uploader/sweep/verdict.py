"""Whether a `.completed` file is in the store: a file that cannot be proven to be there is kept (I1)."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import md5

from uploader.blob.checksum import crc64
from uploader.blob.store import BlobStore, Stored
from uploader.share.handle import Handle, spent
from uploader.sweep.origins import Origin
from uploader.sweep.proofs import Proof

CHUNK = 1024 * 1024  # bytes a read


class Verdict(Enum):
    """What comparing a `.completed` file with the store has shown. ABSENT and OTHER: it is kept."""

    PROVEN = auto()  # its content is in the store
    CHANGED = auto()  # the very file that was sent, but written to afterwards
    ABSENT = auto()  # there is no blob of its name, and none that was made of this very file
    OTHER = auto()  # the blob of its name is not this file


KEPT = {
    Verdict.ABSENT: (
        "there is no blob of this name, {elsewhere}: was the blob deleted? "
        "Rename the file without .completed to have it sent under this name"
    ),
    Verdict.OTHER: (
        "the blob of this name has other content: compare them, "
        "then delete the file, or rename it without .completed to have it sent"
    ),
}
"""Why a file is kept, and what to do; `elsewhere`: what is known of blobs of other names."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict; `blob`: what was made of it, where that was not known from memory; `crc64`: of its content.

    `name`: the blob's, where it is not the one that the file's present name leads to. `emptied`: the blob made of an
    empty file with this inode, of whose content nothing can be told: it is the very file unless that was deleted.
    """

    verdict: Verdict
    blob: Stored | None = None
    crc64: int = 0
    name: str | None = None
    emptied: Stored | None = None


def judge(file: Handle, proof: Proof | None, store: BlobStore, blob: str | None) -> Judged:
    """Compare the file with what this process saw committed, else with the blob; None: no blob can have its name.

    Raises OSError, FileError; of a file whose content would have to be compared HeldOpen when somebody can write to it,
    and LargeRead when it may not be read here.
    """
    if proof and proof.of(file):
        return Judged(_remembered(file, proof))
    stored = store.head(blob) if blob else None
    if stored is None:
        return Judged(Verdict.ABSENT)
    if stored.size == file.now.size:
        file.begin()
        if (crc := _matching(file, stored)) is not None:
            return Judged(Verdict.PROVEN, stored, crc)
    if not _very_file(file, stored):
        return Judged(Verdict.OTHER)
    told = stored.size or (file.born() is not None and stored.born is not None)
    return Judged(Verdict.CHANGED, stored, emptied=None if told else stored)


def judge_moved(file: Handle, origins: Collection[Origin], store: BlobStore) -> Judged | None:
    """Compare the file with blobs of other names that were made of its inode; None when none was made of this file.

    Raises as `judge`.
    """
    if not origins:
        return None
    file.begin()
    begins = _checksums(file, {one.size for one in origins})
    for one in origins:
        if one.size == file.now.size and begins.get(one.size) == one.crc64:
            stored = store.head(one.name)
            if stored and (stored.size, stored.crc64) == (one.size, one.crc64):  # the list may be old
                return Judged(Verdict.PROVEN, stored, one.crc64, one.name)
    for one in origins:
        grown = one.size and begins.get(one.size) == one.crc64
        if grown or (one.born is not None and file.born() is not None):
            return Judged(Verdict.CHANGED, store.head(one.name), name=one.name)
    return None


def _checksums(file: Handle, sizes: Collection[int]) -> dict[int, int]:
    """Return the CRC64 of the file's beginnings of these sizes, as far as it is so long."""
    found, offset, crc = dict[int, int](), 0, 0
    for size in sorted(size for size in sizes if size <= file.now.size):
        while offset < size and (data := os.pread(file.fd, min(CHUNK, size - offset), offset)):
            offset += len(data)
            crc = crc64(data, crc)
            spent(file.fd, offset)
        if offset == size:
            found[size] = crc
    return found


def _remembered(file: Handle, proof: Proof) -> Verdict:
    """Compare by the times; by the content where these cannot tell, as after somebody's chmod or new hard link."""
    if not file.now.same_but_ctime(proof.file):
        return Verdict.CHANGED
    if file.now == proof.file and proof.certain:
        return Verdict.PROVEN
    file.begin()
    return Verdict.PROVEN if _is(file, proof.file.size, proof.crc64) else Verdict.CHANGED


def _very_file(file: Handle, stored: Stored) -> bool:
    """Tell whether it is the file that the blob was made of, and not a later one that was given the same inode.

    Without a time of birth on both sides only content tells: its beginning is what the blob holds.
    """
    if stored.inode != str(file.now.inode):
        return False
    born = file.born()
    if born is not None and stored.born is not None:
        return stored.born == str(born)
    if stored.crc64 is None:
        return False
    file.begin()
    return _begins(file.fd, stored.size, stored.crc64)


def _is(file: Handle, size: int, crc: int) -> bool:
    """Tell whether it has so many bytes, and this CRC64."""
    return file.now.size == size and _begins(file.fd, size, crc)


def _begins(fd: int, size: int, crc: int) -> bool:
    """Tell whether the file's first `size` bytes have this CRC64."""
    found, offset = 0, 0
    while offset < size and (data := os.pread(fd, min(CHUNK, size - offset), offset)):
        offset += len(data)
        found = crc64(data, found)
        spent(fd, offset)
    return offset == size and found == crc


def _matching(file: Handle, stored: Stored) -> int | None:
    """Compare a file with the blob's size and CRC64, else with its MD5; return its CRC64, None when it is no match."""
    if stored.crc64 is not None:
        return stored.crc64 if _is(file, stored.size, stored.crc64) else None
    if stored.md5 is None:
        return None
    digest, offset, crc = md5(usedforsecurity=False), 0, 0
    while data := os.pread(file.fd, CHUNK, offset):
        offset += len(data)
        digest.update(data)
        crc = crc64(data, crc)
        spent(file.fd, offset)
    return crc if offset == stored.size and digest.digest() == stored.md5 else None

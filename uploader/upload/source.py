"""A claimed file as the upload engine gets it, and reading it whole or not at all (I2, I3)."""

import mimetypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from uploader.blob.store import Label
from uploader.errors import ShortRead
from uploader.share.fingerprint import Fingerprint, look_at, unchanged


class Copy(Protocol):
    """A local copy, to which each block is written when copies are kept."""

    def write(self, data: memoryview) -> None:
        """Append. Never fails: a full disk ends the copy, not the upload."""

    def restart(self) -> None:
        """Start again: the file is sent again from its start."""


@dataclass(frozen=True, slots=True)
class Source:
    """A claimed file, open for reading. `check` looks at its name again; `cancelled` tells whether to give up.

    `sent` counts confirmed bytes; negative: bytes that the store has lost.
    """

    fd: int
    look: Fingerprint
    blob: str
    session: str
    retried: bool  # an earlier try may have left blocks, or the whole blob
    check: Callable[[], Fingerprint]
    cancelled: Callable[[], bool]
    sent: Callable[[int], None]
    copy: Copy | None = None

    def label(self, crc: int, digest: bytes | None) -> Label:
        """Return what is stored beside the content: `crc` is the CRC64 of the whole content, `digest` its MD5."""
        kind = content_type(self.blob.rpartition(".")[2])
        return Label(self.look.size, crc, digest, self.look.inode, self.look.mtime_ns, self.session, kind)

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset`. Raises Unsettled or ShortRead at the end of the file (I2, I3)."""
        data = os.pread(self.fd, size, offset)
        if len(data) == size:
            return data
        buffer = bytearray(size)
        self.fill(memoryview(buffer), offset)
        return bytes(buffer)

    def fill(self, data: memoryview, offset: int) -> None:
        """Fill `data` from `offset`. Raises Unsettled or ShortRead at the end of the file (I2, I3)."""
        done = 0
        while done < len(data):
            count = os.preadv(self.fd, [data[done:]], offset + done)
            if count == 0:
                self.unchanged()
                raise ShortRead(f"the file ended after {offset + done} of {self.look.size} bytes")
            done += count

    def unchanged(self) -> None:
        """Raise Unsettled when the open file has changed (I2)."""
        unchanged(self.look, look_at(self.fd))


@lru_cache(maxsize=1024)
def content_type(suffix: str) -> str:
    """Guess a blob's content type from the end of its name."""
    kind, packed = mimetypes.guess_type(f"x.{suffix}")
    return kind if kind and not packed else "application/octet-stream"

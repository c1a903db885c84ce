"""A claimed file as the upload engine gets it, and reading it whole or not at all (I2, I3)."""

import mimetypes
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from uploader.blob.store import Label
from uploader.errors import ShortRead
from uploader.share.fingerprint import Fingerprint
from uploader.share.handle import Handle, spent
from uploader.telemetry.told import Told


class Copy(Protocol):
    """A local copy, to which each block is written when copies are kept."""

    def write(self, data: memoryview) -> None:
        """Append. Never fails: a full disk ends the copy, not the upload."""

    def restart(self) -> None:
        """Start again: the file is sent again from its start."""


@dataclass(frozen=True, slots=True)
class Source:
    """A claimed file. `last_look` is for just before the commit, and may raise Unsettled; `cancelled`: give up.

    `sent` counts bytes that were handed to the socket or are in the store; negative: bytes that have to be sent again.
    """

    file: Handle
    blob: str
    session: str
    retried: bool  # an earlier try may have left blocks, or the whole blob
    last_look: Callable[[], None]
    cancelled: Callable[[], bool]
    sent: Callable[[int], None]
    told: Told = field(default_factory=Told)
    copy: Copy | None = None

    @property
    def look(self) -> Fingerprint:
        """What the file is."""
        return self.file.now

    def label(self, crc: int, digest: bytes | None) -> Label:
        """Return what is stored beside the content: `crc` is the CRC64 of the whole content, `digest` its MD5."""
        kind = content_type(self.blob.rpartition(".")[2])
        look = self.look
        return Label(look.size, crc, digest, look.inode, self.file.born(), look.mtime_ns, self.session, kind)

    def read(self, size: int, offset: int) -> bytes:
        """Return so many bytes. Raises Unsettled or ShortRead at the end of the file (I2, I3)."""
        data = os.pread(self.file.fd, size, offset)
        if len(data) == size:
            return data
        buffer = bytearray(size)
        self.fill(memoryview(buffer), offset)
        return bytes(buffer)

    def fill(self, data: memoryview, offset: int) -> None:
        """Fill `data` from `offset`. Raises Unsettled or ShortRead at the end of the file (I2, I3)."""
        done = 0
        while done < len(data):
            count = os.preadv(self.file.fd, [data[done:]], offset + done)
            if count == 0:
                self.file.unchanged()
                raise ShortRead(f"it ended after {offset + done} of {self.look.size} bytes")
            done += count

    def spent(self, end: int) -> None:
        """Give the page cache of the first `end` bytes back, which were read and are not read again."""
        spent(self.file.fd, end)


@lru_cache(maxsize=1024)
def content_type(suffix: str) -> str:
    """Guess a blob's content type from the end of its name."""
    kind, packed = mimetypes.guess_type(f"x.{suffix}")
    return kind if kind and not packed else "application/octet-stream"

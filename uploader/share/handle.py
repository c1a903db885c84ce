"""A file that is open for reading, and what it was when it was last looked at: what nobody may have changed since (I2).

While it is open no other file can get its inode. Our own steps (a rename, a chmod) move its ctime, which is therefore
taken anew after each of them.
"""

import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self

from uploader.errors import HeldOpen, LargeRead, Unsettled
from uploader.share import fingerprint
from uploader.share.filesystem import FileSystem
from uploader.share.fingerprint import Fingerprint, look_at
from uploader.share.lease import OPEN
from uploader.share.statx import born, quick, synced

CHANGED = "it changed while it was taken; it is taken again when it has settled"


def spent(fd: int, end: int) -> None:
    """Give the page cache of the first `end` bytes back, which were read and are not read again.

    The device has other work, and a file that was sent is about to be deleted. From the beginning each time: the kernel
    keeps a folio that is meant in part only, of up to 2 MiB. Pages that are mapped, or have yet to be written, stay.
    """
    with suppress(OSError):  # only a hint: the file was read all the same
        os.posix_fadvise(fd, 0, end, os.POSIX_FADV_DONTNEED)


class Handle:
    """One file. Every method may raise OSError."""

    def __init__(self, folder: int, name: str, tells: FileSystem, most: int | None = None) -> None:
        """Open it. `most`: bytes of the largest file that may be read whole. Raises NotEligible."""
        self.fd, self.now = fingerprint.read(folder, name)
        self._tells = tells
        self._most = most
        self._born: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        os.close(self.fd)

    def born(self) -> int | None:
        """Return when it was made, in ns; None where its file system does not tell."""
        if self._born is None and self._tells.births:
            self._born = born(self.fd)
        return self._born

    def begin(self) -> None:
        """Take it as it is now, before it is read, if nobody can write to it. Raises HeldOpen, LargeRead."""
        if self._most is not None and self.now.size > self._most:
            raise LargeRead(f"it has to be read, and has more than {self._most} bytes")
        if not self.alone():
            self.now = self._look()

    def held_open(self) -> bool:
        """Tell whether it is known that somebody can write to it."""
        return bool(self._tells.held_open(self.fd))

    def alone(self) -> bool:
        """Raise HeldOpen while somebody can still write to it; False when nobody can tell whether somebody does.

        Then what programs of this machine have written goes to the disk, or the server. A first store through a mapping
        moves the mtime and the next ones do not: not until the page has been written and is stored to once more.
        """
        held = self._tells.held_open(self.fd)
        if held:
            raise HeldOpen(OPEN)
        if held is None:
            os.fsync(self.fd)
        return held is not None

    def unchanged(self) -> None:
        """Raise Unsettled when something has happened to it, as far as this machine remembers."""
        self._compare(self._quick() if self._tells.quick else look_at(self.fd))

    def untouched(self) -> None:
        """Raise Unsettled when something has happened to it; a server is asked."""
        self._compare(self._look())

    def last_look(self, folder: int, name: str) -> None:
        """Look as hard as can be, by its name too, before something that cannot be undone. Raises HeldOpen, Unsettled.

        An NFSv4 client with a read delegation answers from its cache whatever is asked, blind to a writer on the same
        machine. A chmod to the same mode gives the delegation up, and leaves the mtime alone (docs/nfs.md).
        """
        self.alone()
        self._compare(fingerprint.look(folder, name))  # NFS asks the server on open
        if self._tells.remote:
            self.untouched()
            with suppress(PermissionError):
                os.fchmod(self.fd, stat.S_IMODE(os.fstat(self.fd).st_mode))
            self.stepped()

    def stepped(self) -> None:
        """Take the ctime anew after a step of ours. Raises Unsettled when more than that has changed."""
        seen = self._look()
        if not seen.same_but_ctime(self.now):
            raise Unsettled(CHANGED)
        self.now = seen

    def _look(self) -> Fingerprint:
        if self._tells.remote:
            synced(self.fd)
        return self._quick() if self._tells.quick else look_at(self.fd)

    def _quick(self) -> Fingerprint:
        *seen, self._born = quick(self.fd)
        return Fingerprint(*seen)

    def _compare(self, seen: Fingerprint) -> None:
        if seen != self.now:
            raise Unsettled(CHANGED)

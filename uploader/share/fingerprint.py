"""Looking at a file: open and fstat, because NFS asks the server again on open and not on stat."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from uploader.errors import NotEligible, Unsettled

# O_NOFOLLOW: never through a link (I8). O_NONBLOCK: a pipe must not stop us.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a look at a file has shown. Size in bytes; times in ns, by the server's clock."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same(self, other: "Fingerprint") -> bool:
        """Tell whether the content stayed the same between two looks: inode, size and mtime are equal (I2)."""
        mine = (self.inode, self.size, self.mtime_ns)
        return mine == (other.inode, other.size, other.mtime_ns)


def read(folder: int, name: str) -> tuple[int, Fingerprint]:
    """Open a regular file for reading; return its descriptor and fingerprint. Raises NotEligible, OSError."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError as error:
        if reason := odd(folder, name):
            raise NotEligible(reason) from error
        raise
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, _look(status)
    os.close(fd)
    raise NotEligible(odd(folder, name) or "not a regular file")


def odd(folder: int, name: str) -> str | None:
    """Return why this is not a regular file; None when it is a regular file, or absent."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return None
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a pipe",
        stat.S_IFDIR: "a folder",
    }
    return None if stat.S_ISREG(mode) else f"not a regular file but {kinds.get(stat.S_IFMT(mode), 'a device')}"


def look(folder: int, name: str, *, thaw: bool = False) -> Fingerprint:
    """Return a file's fingerprint by open and fstat: NFS asks the server again on open. Raises NotEligible, OSError.

    `thaw`: also end a read delegation, with which an NFSv4 client answers from its cache even on open and does not see
    a writer on the same machine. A chmod to the same mode ends it and leaves the mtime alone (docs/nfs.md).
    """
    fd, now = read(folder, name)
    try:
        if not thaw:
            return now
        with suppress(PermissionError):
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode))
        return look_at(fd)
    finally:
        os.close(fd)


def look_at(fd: int) -> Fingerprint:
    """Return the fingerprint of an open file. Raises OSError."""
    return _look(os.fstat(fd))


def _look(status: os.stat_result) -> Fingerprint:
    return Fingerprint(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def unchanged(before: Fingerprint, now: Fingerprint) -> None:
    """Raise Unsettled when the content has changed between two looks (I2)."""
    if not now.same(before):
        raise Unsettled("the file changed while it was read; it is sent when it has settled")


def inode(folder: int, name: str) -> int | None:
    """Return the inode under a name, None when there is none. Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def size(folder: int, name: str) -> int:
    """Return the size in bytes of the file under a name, as this client has it in its cache. Raises OSError."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size

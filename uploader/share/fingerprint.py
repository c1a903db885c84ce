"""Looking at a file: open and fstat, because NFS asks the server again on open and not on stat."""

import os
import stat
from dataclasses import dataclass, replace

from uploader.errors import NotEligible

# O_NOFOLLOW: never through a link (I8). O_NONBLOCK: a pipe must not stop us.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file was when it was looked at. Times in ns, of the server's clock.

    Equal ones: nothing has happened to the file in between. Nobody can set the ctime, and it moves with every write.
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_but_ctime(self, other: "Fingerprint") -> bool:
        """Compare all but the ctime, where something that leaves the content alone may have moved it: our own rename.

        Somebody who puts the mtime back after a write is not seen.
        """
        return self == replace(other, ctime_ns=self.ctime_ns)

    @property
    def coarse(self) -> bool:
        """Whether a write just after this look could leave all of it as it is: the clock had not moved on for it.

        Either the last write falls into the tick of our last step, or the ticks are whole seconds.
        """
        return self.mtime_ns == self.ctime_ns or self.ctime_ns % 1_000_000_000 == 0


def read(folder: int | None, name: str) -> tuple[int, Fingerprint]:
    """Open a regular file for reading; return its descriptor and fingerprint. Raises NotEligible, OSError.

    `folder` None: `name` is a path.
    """
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


def odd(folder: int | None, name: str) -> str | None:
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


def look(folder: int | None, name: str) -> Fingerprint:
    """Open and fstat: NFS asks the server again on open. Raises NotEligible, or OSError."""
    fd, now = read(folder, name)
    os.close(fd)
    return now


def look_at(fd: int) -> Fingerprint:
    """Return the fingerprint of an open file. Raises OSError."""
    return _look(os.fstat(fd))


def _look(status: os.stat_result) -> Fingerprint:
    return Fingerprint(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def inode(folder: int, name: str) -> int | None:
    """Return the inode under a name, None when there is none. Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def stamp(folder: int, name: str) -> Fingerprint:
    """Return the fingerprint of the file under a name, as this client has it in its cache. Raises OSError."""
    return _look(os.stat(name, dir_fd=folder, follow_symlinks=False))

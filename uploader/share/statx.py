"""What fstat does not tell: when a file was made, and what its server says now. statx(2); Python 3.15 will have it.

An inode is used again once its file is deleted; beside the birth time the next one is not taken for the first.
"""

import ctypes
import os
import struct

# linux/stat.h, linux/fcntl.h
_BASIC, _BTIME = 0x7FF, 0x800
_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000
_SIZE = 256
_STATX = struct.Struct("=I28xQQ32xqI4xqI4xqI")  # mask, inode, size, times of birth, change and modification
_libc = ctypes.CDLL(None, use_errno=True)
_quick = ctypes.PyDLL(None, use_errno=True)


def born(fd: int) -> int | None:
    """Return the birth time of an open file in ns, None where its file system keeps none. Raises OSError."""
    return _read(_libc, fd, _EMPTY_PATH)[4]


def synced(fd: int) -> None:
    """Have the server asked what an open file is, whatever this machine remembers. Raises OSError."""
    _read(_libc, fd, _EMPTY_PATH | _FORCE_SYNC)


def quick(fd: int) -> tuple[int, int, int, int, int | None]:
    """Return inode, size, mtime, ctime and birth (times in ns) of an open file of a local file system.

    There it never waits, so the interpreter's lock is kept: to give it away for a microsecond costs ten where 32
    threads want it. Raises OSError.
    """
    return _read(_quick, fd, _EMPTY_PATH)


def _read(libc: ctypes.CDLL, fd: int, flags: int) -> tuple[int, int, int, int, int | None]:
    found = ctypes.create_string_buffer(_SIZE)
    if libc.statx(fd, b"", flags, _BASIC | _BTIME, found):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    mask, inode, size, birth, birth_ns, ctime, ctime_ns, mtime, mtime_ns = _STATX.unpack_from(found)
    born = birth * 1_000_000_000 + birth_ns if mask & _BTIME else None
    return inode, size, mtime * 1_000_000_000 + mtime_ns, ctime * 1_000_000_000 + ctime_ns, born

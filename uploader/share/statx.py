"""What fstat does not tell: when a file was made, and what its server says now. statx(2); Python 3.15 will have it.

An inode is used again once its file is deleted; beside the birth time the next one is not taken for the first.
"""

import ctypes
import os
import struct

# linux/stat.h, linux/fcntl.h
_BASIC, _BTIME = 0x7FF, 0x800
_EMPTY_PATH, _FORCE_SYNC = 0x1000, 0x2000
_SIZE, _AT_MASK, _AT_BTIME = 256, 0, 80
_libc = ctypes.CDLL(None, use_errno=True)


def born(fd: int) -> int | None:
    """Return the birth time of an open file in ns, None where its file system keeps none. Raises OSError."""
    found = _statx(fd, _EMPTY_PATH, _BTIME)
    (mask,) = struct.unpack_from("=I", found, _AT_MASK)
    seconds, fraction = struct.unpack_from("=qI", found, _AT_BTIME)
    return int(seconds * 1_000_000_000 + fraction) if mask & _BTIME else None


def synced(fd: int) -> None:
    """Have the server asked what an open file is, whatever this machine remembers. Raises OSError."""
    _statx(fd, _EMPTY_PATH | _FORCE_SYNC, _BASIC)


def _statx(fd: int, flags: int, mask: int) -> "ctypes.Array[ctypes.c_char]":
    found = ctypes.create_string_buffer(_SIZE)
    if _libc.statx(fd, b"", flags, mask, found):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found

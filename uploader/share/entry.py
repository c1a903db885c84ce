"""A file of ours below `.nfs-watch`, read strictly: whoever can write to the share can put anything there."""

import errno
import os
import secrets
from contextlib import suppress

from uploader.errors import NotEligible
from uploader.share.fingerprint import read as opened

MOST = 64 * 1024  # bytes; the largest record has about 5 kB
# What a person has to mend: it is no file, it is too large, or this user may not read it.
UNFIT = frozenset({errno.EINVAL, errno.EFBIG, errno.EACCES, errno.EPERM})
_STALE_TRIES = 5


def read(path: str, most: int = MOST) -> bytes | None:
    """Return a file's bytes, None when there is none. Follows no link in the last part, never waits for a writer.

    Raises OSError: EINVAL when it is no regular file, EFBIG when it has more than `most` bytes.
    """
    for last in range(_STALE_TRIES, -1, -1):
        try:
            return _read(path, most)
        except FileNotFoundError:
            return None
        except OSError as error:
            # Another shard replaced the file between our open and our read: the name leads to the new one.
            if error.errno != errno.ESTALE or not last:
                raise
    return None


def _read(path: str, most: int) -> bytes:
    try:
        fd, _ = opened(None, path)
    except NotEligible as error:
        raise OSError(errno.EINVAL, str(error), path) from None
    with os.fdopen(fd, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", path)
    return data


def touched(path: str) -> int:
    """Have the server set a file's mtime to its own time, and return that in ns; made where missing. Follows no link.

    Raises OSError.
    """
    try:
        os.utime(path, follow_symlinks=False)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.utime(path, follow_symlinks=False)
    return os.stat(path, follow_symlinks=False).st_mtime_ns


def temporary(ordinal: int) -> str:
    """Return the beginning of the names of this ordinal's unfinished files."""
    return f".tmp-{ordinal}-"


def clear(folder: str, ordinal: int) -> None:
    """Remove the unfinished files that a killed process of this ordinal has left in a folder. Raises OSError.

    If that process still lives, its write fails: names are random, so that no other file has its file's name.
    """
    for name in os.listdir(folder):
        if name.startswith(temporary(ordinal)):
            with suppress(FileNotFoundError, IsADirectoryError, PermissionError):  # not ours, if one of the last
                os.unlink(f"{folder}/{name}")


def written(folder: str, ordinal: int, data: bytes) -> str:
    """Write an unfinished file to the share's disk; return its path. Raises OSError."""
    path = f"{folder}/{temporary(ordinal)}{secrets.token_hex(8)}"  # in containers every process has the same id
    # Outside the `try`: a file that exists is not ours to remove.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk: half-written files must not pile up
        with suppress(OSError):
            os.unlink(path)
        raise
    return path


def created(path: str, data: bytes, ordinal: int) -> bool:
    """Make a file, whole and on disk; False when the name is taken. Raises OSError."""
    folder = os.path.dirname(path)
    unfinished = written(folder, ordinal, data)
    try:
        os.link(unfinished, path)
    except OSError:
        # The reply may have been lost: a file with two names proves that our link was made.
        if os.stat(unfinished).st_nlink != 2:
            if os.path.lexists(path):
                return False
            raise
    finally:
        with suppress(OSError):  # the next start removes it; what has its name has not failed
            os.unlink(unfinished)
    sync(folder)
    return True


def sync(folder: str) -> None:
    """Have a folder's names on disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

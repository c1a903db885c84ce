"""A file of ours below `.nfs-watch`, read strictly: whoever can write to the share can put anything there."""

import errno
import os
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

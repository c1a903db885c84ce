"""What the share must be able to do, tried at the start: without it sessions would fail one by one, or mix."""

import os
from collections.abc import Callable
from contextlib import suppress

from uploader.errors import BadConfiguration
from uploader.share import entry
from uploader.share.mount import LOST, OWN

TRIES = 5
_ALL = "it has to make hard links, rename, tell a from A and sync a folder (docs/nfs.md, section 9)"


def check(root: str, ordinal: int) -> None:
    """Try all of them with files of ours, which a killed process's successor removes. Raises BadConfiguration, OSError.

    Of the errors of the share only those of a lost mount are raised as they are, and that our file is gone: that is
    another process of this ordinal, which starts too, and the trials begin again.
    """
    for last in range(TRIES - 1, -1, -1):
        try:
            _check(root, entry.written(f"{root}/{OWN}", ordinal, b""))
        except FileNotFoundError:
            if not last:
                raise
        else:
            return


def _check(root: str, path: str) -> None:
    try:
        for lacks, able in _TRIALS.items():
            if (why := _failed(able, path)) is not None:
                raise BadConfiguration(f"NFS_WATCH_ROOT={root}: the share {lacks}{why}: {_ALL}")
    finally:
        for name in (path, _other(path)):
            with suppress(FileNotFoundError):
                os.unlink(name)


def _failed(able: Callable[[str], bool], path: str) -> str | None:
    """Return why a trial has failed, "" when the share gives no reason; None when it has not failed. Raises OSError."""
    try:
        return None if able(path) else ""
    except OSError as error:
        if error.errno in LOST or isinstance(error, FileNotFoundError):
            raise
        return f" ({error.strerror})"


def _other(path: str) -> str:
    return f"{path}-b"


def _links(path: str) -> bool:
    """Tell whether a link is made, and refused where the name is taken: so of two starts only one makes a record."""
    os.link(path, _other(path))
    with suppress(FileExistsError):
        os.link(path, _other(path))
        return False
    return os.stat(path).st_nlink == 2


def _renames(path: str) -> bool:
    os.unlink(_other(path))
    os.rename(path, _other(path))
    return not os.path.lexists(path) and os.path.lexists(_other(path))


def _tells_case(path: str) -> bool:
    folder, name = os.path.split(_other(path))
    return not os.path.lexists(f"{folder}/{name.upper()}")


def _syncs(path: str) -> bool:
    entry.sync(os.path.dirname(path))
    return True


_TRIALS: dict[str, Callable[[str], bool]] = {
    "makes no hard links": _links,
    "does not rename files": _renames,
    "takes a for A in names": _tells_case,
    "cannot sync a folder": _syncs,
}

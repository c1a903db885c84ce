"""Folders reached from a file descriptor, part by part, never through a symbolic link (I8)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# O_PATH opens nothing on the server: such a descriptor never delays the process's end on a dead NFS mount.
_PART = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(top: int, parts: str) -> Iterator[int]:
    """Yield a descriptor of the folder `parts` ("a/b", "" for the top itself) below the folder `top`.

    Raises OSError: ENOENT when a part is missing, ENOTDIR or ELOOP when a part is no folder or a symbolic link.
    """
    here = top
    try:
        for part in parts.split("/") if parts else ():
            below = os.open(part, _PART, dir_fd=here)
            if here != top:
                os.close(here)
            here = below
        yield here
    finally:
        if here != top:
            os.close(here)


def opened_path(path: str) -> int:
    """Return a descriptor of the folder at this path; links in the path itself are the operator's own."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def split(path: str) -> tuple[str, str]:
    """Return the folder and the name of a path: "a/b.bin" -> ("a", "b.bin"), "b.bin" -> ("", "b.bin")."""
    folder, _, name = path.rpartition("/")
    return folder, name


def join(folder: str, name: str) -> str:
    """Undo split; either part may be empty."""
    return f"{folder}/{name}" if folder and name else folder or name

"""Runs the uploader and holds its first system call of a kind on a name until told, so that a server can stop there.

    python hold.py CALL SUFFIX FLAGS

CALL is scandir, preadv, rename or unlink; SUFFIX ends the name (of the folder, file or target) that it is done to. The file
FLAGS/held appears when a call is held; all such calls go on when FLAGS/go exists. FLAGS/sent appears before the first one
goes to the server, FLAGS/done when it has succeeded.
"""

import os
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

FAR = 1000  # entries of a listing that are let through


def wait(flags: Path) -> None:
    """Hold the calling thread."""
    (flags / "held").touch()
    while not (flags / "go").exists():
        time.sleep(0.05)
    (flags / "sent").touch()


def name_of(call: str, args: tuple[Any, ...]) -> str:
    """Return the name that a call works on, by its descriptor or as it is given."""
    where = args[1] if call == "rename" else args[0]
    return str(Path(f"/proc/self/fd/{where}").readlink()) if isinstance(where, int) else os.fsdecode(where)


class Listing:
    """A listing that is held half-way."""

    def __init__(self, entries: Any, flags: Path) -> None:
        self.entries, self.flags = entries, flags

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.entries.close()

    def __iter__(self) -> Iterator[Any]:
        for count, entry in enumerate(self.entries):
            if count == FAR:
                wait(self.flags)
            yield entry
        (self.flags / "done").touch()


def install(call: str, suffix: str, flags: Path) -> None:
    """Replace the real call by the held one."""
    real = getattr(os, call)
    passed = 2 if call == "preadv" else 0  # the first blocks may be read ahead

    def held(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        matches = name_of(call, args).endswith(suffix)
        if matches and call == "scandir":
            return Listing(real(*args, **kwargs), flags)
        last = matches and passed <= 0
        passed -= matches
        if last:
            wait(flags)
            if call == "preadv":  # what the kernel has read ahead would answer for the server
                os.posix_fadvise(args[0], 0, 0, os.POSIX_FADV_DONTNEED)
        result = real(*args, **kwargs)
        if last:
            (flags / "done").touch()
        return result

    setattr(os, call, held)


if __name__ == "__main__":
    install(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    sys.argv = ["uploader"]
    sys.path.insert(0, os.getcwd())
    runpy.run_module("uploader", run_name="__main__")

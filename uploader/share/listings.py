"""Listings that still hold: a folder whose times have not moved has the names that it had.

A name that is made, renamed or removed moves the times of its folder (POSIX, and NFS after it). Only folders of which a
scan has nothing to do are passed over: all their files are completed.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TICK = 2.5  # seconds, longer than the coarsest tick of a file system's clock: FAT's, 2 s
LIST_AGAIN = 60.0  # seconds until a folder is listed although its times are the same: not every file system keeps them


@dataclass(slots=True)
class _Listing:
    """`since`: when these times were first seen; `began`, `until`: of the listing that holds; monotonic seconds."""

    times: tuple[int, ...]
    since: float
    began: float = 0.0
    until: float = 0.0
    below: Sequence[str] = ()


class Listings:
    """The last listing of each folder of one session; used by one thread. Memory: some 500 bytes a folder."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole = True
        self._last: dict[str, _Listing] = {}
        self._now: dict[str, _Listing] = {}

    def begin(self, *, whole: bool) -> None:
        """Begin a scan, and forget the folders that the last one did not meet. `whole`: it passes nothing over."""
        self._whole = whole
        self._last, self._now = self._now, {}

    def below(self, path: str, folder: int) -> Sequence[str] | None:
        """Return the paths of the folders in a folder whose listing holds; None: list it. Raises OSError."""
        seen, now = times(folder), self._clock()
        last = self._last.get(path)
        if last is None or last.times != seen:
            last = _Listing(seen, now)
        self._now[path] = last
        if now < last.until and not self._whole:
            return last.below
        last.began = now
        return None

    def listed(self, path: str, below: Sequence[str], *, done: bool) -> None:
        """Keep what a whole listing has found. `done`: nothing but folders and completed files."""
        listing = self._now[path]
        # Within one tick of the server's clock a second change leaves the same times.
        held = done and listing.began - listing.since >= TICK
        listing.below, listing.until = (below, listing.began + LIST_AGAIN) if held else ((), 0.0)


def times(folder: int) -> tuple[int, ...]:
    """Return what changes with each name that is made, renamed or removed in a folder. Raises OSError."""
    seen = os.fstat(folder)
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns

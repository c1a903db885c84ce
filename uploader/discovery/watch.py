"""Inotify events, as hints that files are finished: a scan finds every file whose event is missed.

Over NFS inotify reports only changes made through this mount, so it helps on the server's own folder (docs/nfs.md).
"""

import logging
import os
import threading
import time
from typing import Protocol

from inotify_simple import INotify, flags

from uploader.naming import COMPLETED, PROCESSING
from uploader.telemetry import names
from uploader.thread import spawn

log = logging.getLogger(__name__)
# CREATE is needed for folders, and comes for files too. Nothing else, so that the kernel's queue does not overflow.
MASK = flags.CLOSE_WRITE | flags.MOVED_TO | flags.CREATE | flags.ONLYDIR
_READY = flags.CLOSE_WRITE | flags.MOVED_TO
_LOST = flags.Q_OVERFLOW | flags.IGNORED | flags.UNMOUNT

SELDOM = 300.0  # seconds between two lines about events that are missing
GATHER = 0.02  # seconds for which events gather: most are of our own renames, and each wake-up interrupts a worker


class Listener(Protocol):
    """Receives the events of a session's folders. Neither call may block: the reader thread makes them."""

    def arrived(self, folder: str, name: str) -> None:
        """Take a file that is finished: `folder` below the session's folder, and its name."""
        ...

    def rescan(self) -> None:
        """Scan soon: events were missed, or do not name the files."""
        ...


class Watch:
    """One inotify instance for the process. Its reader thread only passes events on and never blocks."""

    def __init__(self, *, closes: bool = True) -> None:
        """Take inotify; without it (EMFILE: too many instances for this user) only scans find files.

        `closes`: whether a close after writing means that a file is finished.
        """
        self._lock = threading.Lock()
        self._folders: dict[int, tuple[Listener, str]] = {}
        self._inotify: INotify | None = None
        self._full = False
        self._quiet_until = 0.0
        self._mask = MASK if closes else MASK & ~flags.CLOSE_WRITE
        try:
            self._inotify = INotify()
        except OSError as error:
            log.warning(names.WATCH_UNAVAILABLE, extra={"error": error.strerror})
            return
        spawn("inotify", self._read, self._inotify)

    def add(self, listener: Listener, path: str, folder: int) -> None:
        """Watch an open folder; the listener gets `path` with its events. A folder may be added again."""
        if self._inotify is None:
            return
        with self._lock:
            try:
                # The kernel follows this link to the open folder itself, so that no name can lead elsewhere.
                wd = self._inotify.add_watch(f"/proc/self/fd/{folder}", self._mask)
            except OSError as error:
                if not self._full:
                    log.warning(
                        names.WATCH_UNAVAILABLE,
                        extra={"error": error.strerror, "watches": len(self._folders)},
                    )
                self._full = True
                return
            self._folders[wd] = (listener, path)

    def drop(self, listener: Listener) -> None:
        """Watch no folder of this listener any more."""
        with self._lock:
            gone = [wd for wd, (other, _) in self._folders.items() if other is listener]
            for wd in gone:
                del self._folders[wd]
                self._remove(wd)

    def _remove(self, wd: int) -> None:
        assert self._inotify is not None  # noqa: S101 for the type checker
        try:
            self._inotify.rm_watch(wd)
        except OSError:
            return  # the folder is gone, and its watch with it

    def _read(self, inotify: INotify) -> None:
        while True:
            for event in inotify.read():
                self._hand_on(event.wd, event.mask, os.fsdecode(event.name))
            time.sleep(GATHER)

    def _overflowed(self) -> None:
        """Say that events are missing, at most once in SELDOM seconds: a folder may be too busy all day."""
        now = time.monotonic()
        if now >= self._quiet_until:
            log.warning(names.WATCH_OVERFLOW)
            self._quiet_until = now + SELDOM

    def _hand_on(self, wd: int, mask: int, name: str) -> None:
        if mask & flags.Q_OVERFLOW:  # wd is -1: events of any folder are missing
            self._overflowed()
            self._rescan_all()
            return
        with self._lock:
            known = self._folders.get(wd)
            if mask & flags.IGNORED:
                self._folders.pop(wd, None)
        if known is None:
            return
        listener, path = known
        if mask & (_LOST | flags.ISDIR):
            listener.rescan()
        elif mask & _READY and not name.endswith((PROCESSING, COMPLETED)):
            listener.arrived(path, name)

    def _rescan_all(self) -> None:
        with self._lock:
            everyone = {listener for listener, _ in self._folders.values()}
        for listener in everyone:
            listener.rescan()

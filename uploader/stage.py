"""Local copies of what is being uploaded, kept only while it is (optional)."""

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from uploader import names

log = logging.getLogger(__name__)
MARGIN = 1024 * 1024 * 1024  # bytes of the disk that copies leave free; a full disk evicts the pod
MARGIN_SHARE = 0.1  # and on small disks this part of them instead, when it is less


class StagedCopy:
    """One copy on its way. Whatever the disk does, the upload goes on without it."""

    def __init__(self, staging: "Staging", path: Path, size: int) -> None:
        self._staging = staging
        self.path = path
        self.size = size
        self._fd = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            staging.gave_up(error)

    def write(self, data: memoryview) -> None:
        """Append; a disk that fails ends the copy with one log line."""
        try:
            while self._fd >= 0 and len(data):
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self._staging.gave_up(error)
            self.remove(failed=True)

    def restart(self) -> None:
        """Begin anew: the file is sent again from its start."""
        if self._fd >= 0:
            os.lseek(self._fd, 0, os.SEEK_SET)

    def remove(self, *, failed: bool = False) -> None:
        """Delete the copy."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._staging.full &= failed
            with suppress(OSError):  # the sweep tries again
                self.path.unlink(missing_ok=True)
        self._staging.released(self)


class Staging:
    """The folder of the copies, with a budget of its own: emptyDir's sizeLimit evicts, it does not say ENOSPC."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: bytes of copies at most, 0: what the disk has."""
        self.folder = folder
        self.limit = limit
        self._lock = threading.Lock()
        self._copies: dict[Path, StagedCopy] = {}
        self.full = False  # said already; until a copy fits again

    def begin(self, session: str, path: str, size: int) -> StagedCopy | None:
        """Return a copy to write to, or None when there is no room: the file goes straight from the share."""
        target = self.folder / session / path
        with self._lock:
            try:
                room = self._room()
            except OSError as error:
                self.gave_up(error)
                return None
            if size > room or target in self._copies:
                if size > room and not self.full:
                    log.warning(names.STAGING_SKIPPED, extra={"session": session, "size": size, "room": room})
                self.full = size > room
                return None
            copy = self._copies[target] = StagedCopy(self, target, size)
        return copy

    def _room(self) -> int:
        disk = os.statvfs(self.folder)
        free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        promised = sum(copy.size for copy in self._copies.values())
        room = free - promised - int(min(MARGIN, whole * MARGIN_SHARE))
        return min(room, self.limit - promised) if self.limit else room

    def gave_up(self, error: OSError) -> None:
        """Say once that copies are not kept."""
        if not self.full:
            log.warning(names.STAGING_SKIPPED, extra={"error": str(error)})
        self.full = True

    def released(self, copy: StagedCopy) -> None:
        """Forget a copy."""
        with self._lock:
            self._copies.pop(copy.path, None)

    def sweep(self) -> None:
        """Delete what a crash left: every file that no upload is writing, and empty folders."""
        for folder, _, files in os.walk(self.folder, topdown=False):
            for name in files:
                path = Path(folder, name)
                with self._lock:
                    if path not in self._copies:
                        with suppress(OSError):
                            path.unlink(missing_ok=True)
            if Path(folder) != self.folder:
                self._remove_empty(folder)

    def _remove_empty(self, folder: str) -> None:
        with self._lock:
            try:
                os.rmdir(folder)
            except OSError:
                return  # not empty, or being filled

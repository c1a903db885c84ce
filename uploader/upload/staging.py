"""Optional local copies of the files that are being uploaded, deleted when the upload ends.

Copies that a crash has left are swept, so they must be told from all other files of the folder. The sticky bit marks
them: Linux gives it no meaning on a file or folder that only its owner may use, and nobody else sets it there.
"""

import logging
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from uploader.telemetry import names

log = logging.getLogger(__name__)
MARGIN = 0.15  # of the disk that copies leave free: k3s evicts pods below 5%, and kubelets delete images below 15%
COPY, FOLDER = stat.S_IFREG | stat.S_ISVTX | 0o600, stat.S_IFDIR | stat.S_ISVTX | 0o700


class StagedCopy:
    """One copy. An error of the disk ends the copy, never the upload."""

    def __init__(self, staging: "Staging", path: Path, size: int) -> None:
        self._staging = staging
        self.path = path
        self.size = size
        self._fd = -1
        try:
            _make(path.parent, staging.folder)
            if _ours(path, COPY):
                path.unlink()  # a crash left it
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IMODE(COPY))
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
        """Start again: the file is sent again from its start."""
        if self._fd >= 0:
            os.lseek(self._fd, 0, os.SEEK_SET)

    def remove(self, *, failed: bool = False) -> None:
        """Delete the copy."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._staging.full &= failed
            with suppress(OSError):  # the sweeper tries again
                self.path.unlink(missing_ok=True)
        self._staging.released(self)


class Staging:
    """The folder of the copies, with its own limit: emptyDir's sizeLimit evicts the pod instead of raising ENOSPC."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: bytes of copies at most, 0: all that the disk has."""
        self.folder = folder
        self.limit = limit
        self._lock = threading.Lock()
        self._copies: dict[Path, StagedCopy] = {}
        self.full = False  # logged already; False again when a copy fits

    def begin(self, session: str, path: str, size: int) -> StagedCopy | None:
        """Return a copy to write to; None when there is no room for `size` bytes: the file is sent without a copy."""
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
        room = free - promised - int(whole * MARGIN)
        return min(room, self.limit - promised) if self.limit else room

    def gave_up(self, error: OSError) -> None:
        """Log once that copies are not kept."""
        if not self.full:
            log.warning(names.STAGING_SKIPPED, extra={"error": str(error)})
        self.full = True

    def released(self, copy: StagedCopy) -> None:
        """Forget a copy."""
        with self._lock:
            self._copies.pop(copy.path, None)

    def sweep(self) -> None:
        """Delete what a crash has left: every copy that no upload is writing, and the empty folders of copies."""
        with suppress(OSError):
            self._sweep(self.folder)

    def _sweep(self, folder: Path) -> None:
        for path in list(folder.iterdir()):
            if _ours(path, FOLDER):
                self._sweep(path)
                with self._lock, suppress(OSError):  # not empty, or being filled
                    path.rmdir()
            elif _ours(path, COPY):
                with self._lock, suppress(OSError):  # a copy that stays must not keep the others
                    if path not in self._copies:
                        path.unlink(missing_ok=True)


def _make(folder: Path, top: Path) -> None:
    """Make a folder and its parents, up to `top`. Raises FileExistsError where a file or folder is not ours."""
    if folder == top or _ours(folder, FOLDER):
        return
    _make(folder.parent, top)
    folder.mkdir(stat.S_IMODE(FOLDER))


def _ours(path: Path, kind: int) -> bool:
    """Tell whether this exists and we made it. A folder may have inherited the setgid bit from its parent."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and status.st_mode & ~stat.S_ISGID == kind

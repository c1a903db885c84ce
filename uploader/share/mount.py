"""The share as a whole: whether it answers, whether it is still the same share, and its server's time.

There are no circuit breakers (A13): when the share is lost the process ends with 75, and Kubernetes replaces the pod.
"""

import errno
import logging
import os
import stat
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from uploader.errors import ShareLost
from uploader.share.entry import clear, touched
from uploader.share.filesystem import tried
from uploader.share.paths import opened_path
from uploader.telemetry import names
from uploader.thread import die, spawn

log = logging.getLogger(__name__)
OWN = ".nfs-watch"
# Errors of calls on a lost NFS mount. ESTALE never passes in a running pod; ETIMEDOUT comes with the option softerr.
LOST = frozenset({errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV})
PROBE_INTERVAL = 1.0  # seconds between two probes of the watchdog


class Share:
    """The mounted share. `fd` is its root for relative calls: opened with O_PATH, which opens nothing on the server."""

    def __init__(self, root: Path, ordinal: int, timeout: float) -> None:
        """Make our own folder where it is missing. `timeout`: seconds without an answer. Raises OSError."""
        self.root = str(root)
        self.fd = opened_path(self.root)
        self.timeout = timeout
        self._identity = self._look()
        for own in (OWN, f"{OWN}/sessions", f"{OWN}/given-back"):
            _make(f"{self.root}/{own}")
        clear(f"{self.root}/{OWN}", ordinal)
        self._clock = f"{self.root}/{OWN}/clock-{ordinal}"
        self.server_time()  # fails here, not in each scan, when the share cannot be written
        self.tells = tried(f"{self.root}/{OWN}", ordinal)
        self.free: int | None = None  # bytes that may still be written, by the watchdog's last look
        self._good = time.monotonic()
        self._reported: set[str] = set()
        self._lock = threading.Lock()  # of what was reported
        if not os.path.ismount(self.root):
            log.warning(names.SHARE_NOT_A_MOUNT, extra={"root": self.root})
        log.info(names.SHARE_TELLS, extra={"root": self.root} | asdict(self.tells))

    def _look(self) -> tuple[int, int]:
        status = os.stat(self.root)
        return status.st_dev, status.st_ino

    def server_time(self) -> int:
        """Return the server's time in ns: the mtime that it gives a file of ours when we touch it. Raises OSError."""
        return touched(self._clock)

    def age(self) -> float:
        """Return the seconds since the share last answered the watchdog. From memory."""
        return time.monotonic() - self._good

    def probe(self) -> None:
        """Ask the share for an answer. Raises ShareLost when it fails or is another share (I6)."""
        try:
            room = os.statvfs(self.root)  # goes to the server, unlike stat: see docs/nfs.md
            identity = self._look()
        except OSError as error:
            raise ShareLost(f"the share at {self.root} does not answer: {error.strerror}") from error
        if identity != self._identity:
            raise ShareLost(f"the share mounted at {self.root} is no longer the share that was there at the start")
        self.free = room.f_bavail * room.f_frsize
        self._good = time.monotonic()

    def judge(self, error: OSError) -> None:
        """Tell a lost share from one bad file. Raises ShareLost when the share itself fails too.

        A file that another client has deleted answers ESTALE as well, and must not end the process (I7).
        """
        if error.errno in LOST:
            self.probe()

    def report(self, path: str, reason: str) -> None:
        """Log once that something else than a file of ours stands at this path."""
        with self._lock:
            new = path not in self._reported
            self._reported.add(path)
        if new:
            log.error(names.RECORD_UNREADABLE, extra={"path": path, "error": reason})

    def watch(self) -> None:
        """Start the watchdog: one thread asks the share and may hang; the other checks the last answer's age."""
        self._good = time.monotonic()
        spawn("share-probe", self._ask)
        spawn("share-age", self._check_age)

    def _ask(self) -> None:
        while True:
            self.probe()
            time.sleep(PROBE_INTERVAL)

    def _check_age(self) -> None:
        warned = False
        while True:
            age = self.age()
            if age > self.timeout:
                die(ShareLost(f"the share at {self.root} has not answered for {age:.0f} s"))
            if (slow := age > self.timeout / 3) and not warned:
                spawn("share-slow", self._warn, age, ends=True)  # a log that is blocked must not hold this thread
            warned = slow
            time.sleep(min(0.5, self.timeout / 10))

    def _warn(self, age: float) -> None:
        log.warning(names.SHARE_SLOW, extra={"seconds": round(age, 1)})

    def close(self) -> None:
        """Close the descriptor; for tests."""
        with suppress(OSError):
            os.close(self.fd)


def _make(folder: str) -> None:
    """Make a folder of ours where it is missing. Raises NotADirectoryError when something else, or a link, is there."""
    with suppress(FileExistsError):
        os.mkdir(folder)
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it has to be a folder, and no link to one", folder)

"""When a file is ready: its producer renamed it or set its times last, or left it alone for long enough.

Over NFS a writer's data may sit in its own machine's cache, so that a file looks smaller
and older than it is (docs/nfs.md).
"""

import time
from dataclasses import dataclass, replace
from math import inf

from uploader.backlog.inventory import Inventory
from uploader.backlog.settling import Settling
from uploader.settings import Settings
from uploader.share.filesystem import FileSystem
from uploader.share.fingerprint import Fingerprint
from uploader.share.handle import Handle
from uploader.share.lease import OPEN
from uploader.share.scan import Found, Kind

READY = -inf
AGAIN = 0.1  # seconds to the second look at an open file; each further one comes after twice as long


@dataclass
class Pass:
    """One scan. `server`: the server's time in ns when it began; `waited`: seconds for room in the queue.

    `beyond`: files that found no room. `ripe`: when the first settling file will have settled, monotonic seconds.
    `given_back`: the server's time in ns up to which a sign may be a give-back of a claim by one of our processes.
    `vanished`: the first name that was listed and then not there.
    """

    server: int
    began: float
    given_back: int
    waited: float = 0.0
    beyond: int = 0
    counted: bool = False
    ripe: float = inf
    vanished: str | None = None

    def vanish(self, path: str) -> None:
        """Note a name that was listed and then not there."""
        self.vanished = self.vanished or path


class Readiness:
    """Decides which files of one session are ready, and remembers the files that have to settle."""

    def __init__(self, files: Inventory, settings: Settings, tells: FileSystem) -> None:
        """`tells`: what can be known of a file on the share."""
        self._files = files
        self._settings = settings
        self._tells = tells
        self._trusted = 0 if files.fresh else None  # the server's time in ns; a rename before that is not trusted

    def begin(self, server: int) -> None:
        """Take the server's time in ns at a scan: no rename before the first scan of an older session is trusted."""
        if self._trusted is None:
            self._trusted = server

    def look(self, found: Found, one: Pass, now: float) -> Fingerprint | None:
        """Return what a file is that is ready, None of one that has to settle. Raises OSError, FileError."""
        with Handle(found.folder, found.name, self._tells) as file:
            if found.kind is Kind.PROCESSING:
                return file.now
            settling = self._settling(found.path, file.now, one, now)
            if settling.due == READY:
                if not file.held_open():
                    return file.now
                settling = self._open(found.path, settling, now)
        soonest = now if settling.reason else now + self._settings.scan_interval
        one.ripe = min(one.ripe, max(settling.due, soonest))
        if not self._files.settle(found.path, settling):
            one.beyond += 1
        return None

    def _settling(self, path: str, current: Fingerprint, one: Pass, now: float) -> Settling:
        """Return since when a file has been left alone, and when to look again: READY if that need not be."""
        before = self._files.settling(path)
        given_back = before is not None and before.given_back
        since = before.since if before and before.look == current else now
        age = (one.server - current.ctime_ns) / 1e9
        settle = self._settings.settle if current.size else self._settings.settle_empty
        sign = signed(current, max(self._trusted or 0, one.given_back)) and not given_back
        # What happened since the scan began may be a giving back whose mark came too late for it.
        if (sign and current.ctime_ns <= one.server) or settled(age, now - since, settle):
            return Settling(current, since, READY, given_back)
        wait = 0.0 if sign else rest(age, now - since, settle)
        if not current.size:
            wait = min(wait, self._settings.settle)  # content may come at any time, and has its own time to settle
        return Settling(current, since, now + wait, given_back)

    def _open(self, path: str, settling: Settling, now: float) -> Settling:
        """Let a file wait to which somebody can write: shortly at first, at last for as long as it has to settle.

        The kernel's NFS server closes its own descriptor because a lease is asked for, about 20 ms later (docs/nfs.md).
        """
        before = self._files.settling(path)
        pause = min(2 * before.pause, max(self._settings.settle, AGAIN)) if before and before.pause else AGAIN
        return replace(settling, due=now + pause, pause=pause, reason=OPEN)

    def closed(self, folder: int, name: str, path: str) -> Fingerprint | float:
        """Return what a file is that an event calls finished; when to look again while somebody can write to it.

        That is in monotonic seconds. A close after writing is not the end of a shared mapping. Raises OSError,
        FileError.
        """
        with Handle(folder, name, self._tells) as file:
            if not file.held_open():
                return file.now
        now = time.monotonic()
        settling = self._open(path, Settling(file.now, now, now), now)
        self._files.settle(path, settling)
        return settling.due


def signed(file: Fingerprint, trusted: int) -> bool:
    """Tell whether something happened to a file after its last write: a rename, or a final utimes.

    `trusted`: the server's time in ns. An earlier sign may be our own give-back of a claim.
    """
    return file.size > 0 and file.ctime_ns > max(file.mtime_ns, trusted)


def settled(age: float, unchanged: float, settle: float) -> bool:
    """Tell whether a file was left alone for `settle` seconds.

    `age`: seconds since its ctime, by the server's clock; `unchanged`: seconds between our looks, by our clock.
    """
    return age >= settle or unchanged >= settle > 0


def rest(age: float, unchanged: float, settle: float) -> float:
    """Return the seconds until a file has settled, if it stays unchanged."""
    return settle - max(age, unchanged)

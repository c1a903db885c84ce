"""When a file is ready: its producer renamed it or set its times last, or left it alone for long enough.

Over NFS a writer's data may sit in its own machine's cache, so that a file looks smaller
and older than it is (docs/nfs.md).
"""

from dataclasses import dataclass
from math import inf

from uploader.backlog.inventory import Inventory
from uploader.backlog.settling import Settling
from uploader.settings import Settings
from uploader.share.fingerprint import Fingerprint, look
from uploader.share.scan import Found, Kind


@dataclass
class Pass:
    """One scan. `server`: the server's time in ns when it began; `waited`: seconds for room in the queue.

    `beyond`: files that found no room. `ripe`: when the first settling file will have settled, monotonic seconds.
    """

    server: int
    began: float
    waited: float = 0.0
    beyond: int = 0
    counted: bool = False
    ripe: float = inf


class Readiness:
    """Decides which files of one session are ready, and remembers the files that have to settle."""

    def __init__(self, files: Inventory, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._trusted = 0 if files.fresh else None  # the server's time in ns; a rename before that is not trusted

    def begin(self, server: int) -> None:
        """Take the server's time in ns at a scan: no rename before the first scan of an older session is trusted."""
        if self._trusted is None:
            self._trusted = server

    def look(self, found: Found, one: Pass, now: float) -> Fingerprint | None:
        """Return the fingerprint of a file that is ready, None when it has to settle. Raises OSError, FileError."""
        current = look(found.folder, found.name)
        if found.kind is Kind.PROCESSING:
            return current
        before = self._files.settling(found.path)
        given_back = before is not None and before.given_back
        since = before.since if before and before.look == current else now
        age = (one.server - current.ctime_ns) / 1e9
        settle = self._settings.settle if current.size else self._settings.settle_empty
        if (signed(current, self._trusted or 0) and not given_back) or settled(age, now - since, settle):
            return current
        wait = rest(age, now - since, settle)
        if not current.size:
            wait = min(wait, self._settings.settle)  # content may come at any time, and has its own time to settle
        one.ripe = min(one.ripe, now + max(wait, self._settings.scan_interval))
        if not self._files.settle(found.path, Settling(current, since, now + wait, given_back)):
            one.beyond += 1
        return None


def signed(file: Fingerprint, trusted: int) -> bool:
    """Tell whether something happened to a file after its last write: a rename, or a final utimes.

    `trusted`: the server's time in ns. A rename before this process started may be our own give-back, so that it is
    not trusted.
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

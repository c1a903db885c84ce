"""When is a file ready? What no event calls finished goes when it was left alone for long enough.

Over NFS a writer's data may sit in its own machine's cache, so that a file looks smaller
and older than it is (docs/nfs.md).
"""

from dataclasses import dataclass
from math import inf

from uploader.backlog.inventory import Files
from uploader.backlog.settling import Settling
from uploader.settings import Settings
from uploader.share.fingerprint import Look, look
from uploader.share.scan import Found, Kind


@dataclass
class Pass:
    """What one scan met. `server`: the server's time in ns when it began; `waited`: seconds for room in the queue.

    `ripe`: when the first of the files that have to settle will have, monotonic seconds.
    """

    server: int
    began: float
    waited: float = 0.0
    beyond: int = 0
    counted: bool = False
    ripe: float = inf


class Readiness:
    """Judges the files of one session, and remembers those that settle."""

    def __init__(self, files: Files, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._trusted = 0 if files.fresh else None  # the server's time in ns; what happened before is no sign

    def begin(self, server: int) -> None:
        """Take note of the server's time in ns at each scan: only the first one's counts."""
        if self._trusted is None:
            self._trusted = server

    def look(self, found: Found, one: Pass, now: float) -> Look | None:
        """Return what a file is that is ready, None of one that has to settle. Raises OSError, FileError."""
        current = look(found.folder, found.name)
        if found.kind is Kind.PROCESSING:
            return current
        before = self._files.settling(found.path)
        since = before.since if before and before.look == current else now
        given_back = before is not None and before.given_back
        settle = self._settings.settle if current.size else self._settings.settle_empty
        age = (one.server - current.ctime_ns) / 1e9
        # A sign from before this run may be an earlier one's giving back of a claim, which only that one knew.
        signed = current.size > 0 and current.ctime_ns > max(current.mtime_ns, self._trusted or 0) and not given_back
        if signed or age >= settle or now - since >= settle > 0:
            return current
        due = min(since, now - age) + settle if age > 0 else since + settle
        if not current.size:
            due = min(due, now + self._settings.settle)  # content may come at any time, and has its own time to settle
        one.ripe = min(one.ripe, max(due, now + self._settings.scan_interval))
        if not self._files.settle(found.path, Settling(current, since, due, given_back)):
            one.beyond += 1
        return None

"""The files of one session that were looked at and may still be written.

Memory: MAX_SETTLING times about 500 bytes with the path.
"""

from dataclasses import dataclass

from uploader.backlog.remembered import Remembered
from uploader.share.fingerprint import Fingerprint

MAX_SETTLING = 20_000  # each scan looks at any further files again


@dataclass(slots=True)
class Settling:
    """A file that may still be written. `since`: unchanged since; `due`: look again then; both monotonic seconds.

    `seen`: number of the last scan that saw it.
    """

    look: Fingerprint
    since: float
    due: float
    given_back: bool = False
    seen: int = 0

    @property
    def size(self) -> int:
        """Return the file's size in bytes."""
        return self.look.size


class SettlingFiles(Remembered[Settling]):
    """The settling files of one session. Not thread-safe: the caller holds the inventory's lock."""

    def full(self) -> bool:
        """Tell whether MAX_SETTLING files are remembered."""
        return len(self) >= MAX_SETTLING

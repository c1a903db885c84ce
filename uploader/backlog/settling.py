"""The files of one session that were looked at and may still be written.

Memory: MAX_SETTLING times about 500 bytes with the path.
"""

from dataclasses import dataclass

from uploader.backlog.remembered import Remembered
from uploader.share.fingerprint import Fingerprint

MAX_SETTLING = 20_000  # the others are looked at in each scan


@dataclass(slots=True)
class Settling:
    """One of them. `due`: when to look again, monotonic seconds; `seen`: by which scan last."""

    look: Fingerprint
    since: float
    due: float
    given_back: bool = False
    seen: int = 0

    @property
    def size(self) -> int:
        """Return its bytes."""
        return self.look.size


class SettlingFiles(Remembered[Settling]):
    """All of them."""

    def full(self) -> bool:
        """Tell whether no further file should be remembered."""
        return len(self) >= MAX_SETTLING

"""The files of one session that were looked at and may still be written.

Memory: MAX_SETTLING times about 500 bytes with the path.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from uploader.backlog.remembered import Remembered
from uploader.share.fingerprint import Fingerprint

MAX_SETTLING = 20_000  # each scan looks at any further files again


@dataclass(slots=True)
class Settling:
    """A file that may still be written. `since`: unchanged since; `due`: look again then; both monotonic seconds.

    `seen`: number of the last scan that saw it. `reason`: what the file waits for, where that is more than time;
    `pause`: then the seconds from the last look to `due`.
    """

    look: Fingerprint
    since: float
    due: float
    given_back: bool = False
    reason: str = ""
    seen: int = 0
    pause: float = 0.0

    @property
    def size(self) -> int:
        """Return the file's size in bytes."""
        return self.look.size


class SettlingFiles(Remembered[Settling]):
    """The settling files of one session. Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        super().__init__()
        self._with_reason: dict[str, Settling] = {}

    def put(self, path: str, note: Settling, scan: int) -> None:
        """Remember a file that this scan has seen."""
        super().put(path, note, scan)
        if note.reason:
            self._with_reason[path] = note

    def drop(self, path: str) -> Settling | None:
        """Forget a file; return what was remembered of it."""
        self._with_reason.pop(path, None)
        return super().drop(path)

    def with_reason(self) -> Iterable[tuple[str, Settling]]:
        """Return those that wait for more than time."""
        return self._with_reason.items()

    def full(self) -> bool:
        """Tell whether MAX_SETTLING files are remembered."""
        return len(self) >= MAX_SETTLING

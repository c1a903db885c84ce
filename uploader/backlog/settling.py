"""The files of one session that were looked at and may still be written.

Memory: MAX_SETTLING times about 500 bytes with the path.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


class SettlingFiles:
    """Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        self.bytes = 0
        self._known: dict[str, Settling] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, path: str) -> Settling | None:
        """Return what is remembered of a file."""
        return self._known.get(path)

    def full(self) -> bool:
        """Tell whether MAX_SETTLING files are remembered."""
        return len(self._known) >= MAX_SETTLING

    def put(self, path: str, settling: Settling, scan: int) -> None:
        """Remember a file that this scan has seen."""
        self.drop(path)
        settling.seen = scan
        self._known[path] = settling
        self.bytes += settling.look.size

    def drop(self, path: str) -> None:
        """Forget a file."""
        if settling := self._known.pop(path, None):
            self.bytes -= settling.look.size

    def drop_unseen(self, scan: int, held: Callable[[str], bool]) -> None:
        """Forget the files that this scan did not see, unless they are `held`."""
        for path in [path for path, one in self._known.items() if one.seen < scan and not held(path)]:
            self.drop(path)

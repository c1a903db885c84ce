"""The files of one session that were looked at and may still be written.

Memory: MAX_SETTLING times about 500 bytes with the path.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from uploader.share.fingerprint import Fingerprint

MAX_SETTLING = 20_000  # the others are looked at in each scan


@dataclass(slots=True)
class Settling:
    """One of them. `due`: when to look again, monotonic seconds; `seen`: by which scan last.

    `reason`: what it waits for, where that is more than time.
    """

    look: Fingerprint
    since: float
    due: float
    given_back: bool = False
    reason: str = ""
    seen: int = 0


class SettlingFiles:
    """Not for threads: whoever calls holds the lock of the session's files."""

    def __init__(self) -> None:
        self.bytes = 0
        self._known: dict[str, Settling] = {}
        self._with_reason: dict[str, Settling] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, path: str) -> Settling | None:
        """Return what is remembered of a file."""
        return self._known.get(path)

    def with_reason(self) -> Iterable[tuple[str, Settling]]:
        """Return those that wait for more than time."""
        return self._with_reason.items()

    def full(self) -> bool:
        """Tell whether no further file should be remembered."""
        return len(self._known) >= MAX_SETTLING

    def put(self, path: str, settling: Settling, scan: int) -> None:
        """Remember a file that this scan has seen."""
        self.drop(path)
        settling.seen = scan
        self._known[path] = settling
        if settling.reason:
            self._with_reason[path] = settling
        self.bytes += settling.look.size

    def drop(self, path: str) -> None:
        """Forget a file."""
        if settling := self._known.pop(path, None):
            self.bytes -= settling.look.size
            self._with_reason.pop(path, None)

    def drop_unseen(self, scan: int, held: Callable[[str], bool]) -> None:
        """Forget what this scan did not see, unless somebody has it in hand."""
        for path in [path for path, one in self._known.items() if one.seen < scan and not held(path)]:
            self.drop(path)

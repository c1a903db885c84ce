"""What is remembered of some files by path, as long as scans see them."""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Note(Protocol):
    """What is remembered of one file. `seen`: number of the last scan that saw it."""

    seen: int

    @property
    def size(self) -> int:
        """Return the file's bytes."""


N = TypeVar("N", bound=Note)


class Remembered(Generic[N]):
    """Notes by path. Not thread-safe: the caller holds the inventory's lock."""

    def __init__(self) -> None:
        self.bytes = 0  # of all remembered files
        self._known: dict[str, N] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[str, N]]:
        return iter(self._known.items())

    def get(self, path: str) -> N | None:
        """Return what is remembered of a file."""
        return self._known.get(path)

    def last(self) -> tuple[str, N] | None:
        """Return the file that was remembered last."""
        path = next(reversed(self._known), None)
        return None if path is None else (path, self._known[path])

    def put(self, path: str, note: N, scan: int) -> None:
        """Remember a file that this scan has seen, in place of what was remembered of it."""
        self.drop(path)
        note.seen = scan
        self._known[path] = note
        self.bytes += note.size

    def drop(self, path: str) -> N | None:
        """Forget a file; return what was remembered of it."""
        if note := self._known.pop(path, None):
            self.bytes -= note.size
        return note

    def drop_unseen(self, scan: int, held: Callable[[str], bool]) -> None:
        """Forget the files that this scan did not see, unless they are `held`."""
        for path in [path for path, note in self._known.items() if note.seen < scan and not held(path)]:
            self.drop(path)

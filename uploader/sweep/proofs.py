"""The files that this process saw the store confirm, and when each may be deleted."""

import threading
import time
from dataclasses import dataclass

from uploader.share.fingerprint import Fingerprint
from uploader.share.handle import Handle

MAX_PROOFS = 100_000  # about 500 bytes each; about any other file the store is asked
Key = tuple[str, str]
"""A session, and a path below its folder."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A file whose content the store has confirmed. `file`: what it was after our last step; `crc64`: of its content.

    `certain`: the times of `file` are enough; otherwise the content is compared once more before the deletion.
    """

    file: Fingerprint
    born: int | None
    crc64: int
    certain: bool

    @property
    def inode(self) -> int:
        """The file's inode."""
        return self.file.inode

    def of(self, other: Handle) -> bool:
        """Tell whether this is the file, changed or not. An inode is given again when its file is deleted."""
        return other.now == self.file or (other.now.inode == self.inode and other.born() == self.born)


class Proofs:
    """At most MAX_PROOFS files; the oldest is dropped, and the store asked about that file again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[Proof, float]] = {}  # and when it is due; the oldest first
        self._paths: dict[tuple[str, int], str] = {}  # by session and inode: a folder may be renamed

    def add(self, key: Key, proof: Proof, wait: float) -> None:
        """Note a file that the store has; `wait`: seconds until it may be deleted."""
        with self._lock:
            self._add(key, proof, time.monotonic() + wait)

    def _add(self, key: Key, proof: Proof, due: float) -> None:
        self._forget(key)  # the newest stand last, even of a name that comes again
        self._known[key] = (proof, due)
        self._paths[key[0], proof.inode] = key[1]
        if len(self._known) > MAX_PROOFS:
            self._forget(next(iter(self._known)))

    def _forget(self, key: Key) -> None:
        known = self._known.pop(key, None)
        if known and self._paths.get(at := (key[0], known[0].inode)) == key[1]:
            del self._paths[at]

    def put_off(self, key: Key, wait: float) -> None:
        """Make a known file due again in `wait` seconds."""
        with self._lock:
            if known := self._known.get(key):
                self._add(key, known[0], time.monotonic() + wait)

    def due(self, now: float) -> list[Key]:
        """Return the files that may be deleted at `now`, monotonic seconds. The caller forgets or puts off each."""
        with self._lock:
            return [key for key, (_, due) in self._known.items() if due <= now]

    def get(self, key: Key) -> Proof | None:
        """Return what is known of a file."""
        with self._lock:
            return known[0] if (known := self._known.get(key)) else None

    def moved(self, key: Key, inode: int) -> Proof | None:
        """Return what is known of a file of this inode under another path, which is this one from now on."""
        with self._lock:
            before = (key[0], self._paths.get((key[0], inode), ""))
            known = self._known.get(before)
            if known is None:
                return None
            self._forget(before)
            self._add(key, *known)
            return known[0]

    def waits(self, key: Key) -> bool:
        """Tell whether the file is known and may not be deleted yet."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[1] > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a file that is deleted, or is no longer the file that was committed."""
        with self._lock:
            self._forget(key)

"""The files that this process saw the store confirm, and when each may be deleted."""

import threading
import time
from itertools import takewhile

from uploader.share.fingerprint import Fingerprint

MAX_PROOFS = 100_000  # about 500 bytes each; about any other file the store is asked
Key = tuple[str, str]
"""A session, and a path below its folder."""


class Proofs:
    """At most MAX_PROOFS files; the oldest is dropped, and the store asked about that file again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[Fingerprint, float]] = {}  # in the order in which they are due

    def add(self, key: Key, committed: Fingerprint, wait: float) -> None:
        """Remember a file's fingerprint when it was committed; `wait`: seconds until the file may be deleted."""
        with self._lock:
            self._add(key, committed, wait)

    def _add(self, key: Key, committed: Fingerprint, wait: float) -> None:
        self._known.pop(key, None)  # so that a known name moves to the end
        self._known[key] = (committed, time.monotonic() + wait)
        if len(self._known) > MAX_PROOFS:
            del self._known[next(iter(self._known))]

    def put_off(self, key: Key, wait: float) -> None:
        """Make a known file due again in `wait` seconds, or later: the files before it in the order come first."""
        with self._lock:
            if known := self._known.get(key):
                self._add(key, known[0], wait)

    def due(self, now: float) -> list[Key]:
        """Return the files that may be deleted at `now`, monotonic seconds. The caller forgets or puts off each."""
        with self._lock:
            return [key for key, _ in takewhile(lambda one: one[1][1] <= now, self._known.items())]

    def get(self, key: Key) -> Fingerprint | None:
        """Return the file's fingerprint when it was committed, None when that is not known."""
        with self._lock:
            return known[0] if (known := self._known.get(key)) else None

    def waits(self, key: Key) -> bool:
        """Tell whether the file is known and may not be deleted yet."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[1] > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a file that is deleted, or is no longer the file that was committed."""
        with self._lock:
            self._known.pop(key, None)

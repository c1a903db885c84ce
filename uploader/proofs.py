"""The files that this process saw the store confirm, and when each may be deleted."""

import threading
import time
from collections import OrderedDict, deque

from uploader.look import Look

MAX_PROOFS = 100_000  # about 300 bytes each; beyond it the store is asked
Key = tuple[str, str]
"""A session, and a path below its folder."""


class Proofs:
    """Bounded: of the oldest the store is asked again. For all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, tuple[Look, float]] = OrderedDict()
        self._due: deque[tuple[float, Key]] = deque()

    def add(self, key: Key, committed: Look, wait: float) -> None:
        """Note what a file was when it was committed; `wait`: seconds until it may be deleted."""
        with self._lock:
            self._add(key, committed, wait)

    def _add(self, key: Key, committed: Look, wait: float) -> None:
        due = time.monotonic() + wait
        self._known.pop(key, None)  # the newest stand last, even of a name that comes again
        self._known[key] = (committed, due)
        self._due.append((due, key))
        if len(self._known) > MAX_PROOFS:
            self._known.popitem(last=False)
        if len(self._due) > MAX_PROOFS:
            self._due.popleft()  # a walk finds it

    def put_off(self, key: Key, wait: float) -> None:
        """Try a file again later, if it is still known."""
        with self._lock:
            if known := self._known.get(key):
                self._add(key, known[0], wait)

    def take_due(self, now: float) -> list[Key]:
        """Return what may be deleted at `now`, monotonic seconds; each once."""
        due = []
        with self._lock:
            while self._due and self._due[0][0] <= now:
                _, key = self._due.popleft()
                known = self._known.get(key)
                if known and known[1] <= now:  # else it is gone, or the name came again and has its own time
                    due.append(key)
        return due

    def get(self, key: Key) -> Look | None:
        """Return what the file was when it was committed."""
        with self._lock:
            return known[0] if (known := self._known.get(key)) else None

    def waits(self, key: Key) -> bool:
        """Tell whether its time has not come yet."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[1] > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a file that is deleted, or no longer what was committed."""
        with self._lock:
            self._known.pop(key, None)

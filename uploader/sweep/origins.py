"""Under which name the store has a file whose folder was renamed: each blob's metadata names the inode it was made of.

Asked only about a `.completed` file that this process has not sent and that no blob of its name proves. To ask is to
list the session's blobs.
"""

import threading
import time
from dataclasses import dataclass
from itertools import islice

from uploader.blob.store import BlobStore, Stored
from uploader.errors import StoreRefused
from uploader.share.handle import Handle

MAX_ORIGINS = 100_000  # blobs of a session that are remembered, about 400 bytes each, for all sessions together
FRESH = 60.0  # seconds for which a list holds
PAUSE = 20  # it holds for at least this many times as long as it took


@dataclass(frozen=True, slots=True)
class Origin:
    """A blob that says that it was made of a file with this inode, and birth where that is known."""

    name: str
    size: int
    crc64: int
    born: str | None


@dataclass
class _List:
    until: float  # monotonic seconds
    found: dict[str, list[Origin]]  # by inode
    whole: bool = True
    refused: str = ""


class Origins:
    """What the sessions' blobs were made of. Thread-safe: one list is made at a time, and the others wait for it."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._lists: dict[str, _List] = {}

    def of(self, prefix: str, file: Handle) -> list[Origin]:
        """Return the blobs below a prefix that may have been made of this file. Raises StoreError, OSError."""
        born = file.born()
        with self._lock:
            found = self._list(prefix).found.get(str(file.now.inode), [])
        return [one for one in found if born is None or one.born is None or one.born == str(born)]

    def none(self, prefix: str) -> str:
        """Say, after `of` has found no blob, what that means."""
        with self._lock:
            known = self._lists.get(prefix)
        if known and known.refused:
            return f"and the others, one of which may have been made of this file, cannot be listed ({known.refused})"
        if known and not known.whole:
            return f"nor one that was made of this file among the session's first {MAX_ORIGINS:,} blobs"
        return "nor one of another name that was made of this file"

    def _list(self, prefix: str) -> _List:
        began = time.monotonic()
        known = self._lists.get(prefix)
        if known is None or known.until < began:
            self._lists = {key: one for key, one in self._lists.items() if one.until > began and key != prefix}
            if sum(len(one.found) for one in self._lists.values()) > MAX_ORIGINS:
                self._lists.clear()
            known = self._lists[prefix] = self._asked(prefix)
            known.until = time.monotonic() + max(FRESH, PAUSE * (time.monotonic() - began))
        return known

    def _asked(self, prefix: str) -> _List:
        made = _List(0.0, {})
        try:
            blobs = self._store.below(prefix)
            for name, stored in islice(blobs, MAX_ORIGINS):
                if origin := _origin(name, stored):
                    made.found.setdefault(stored.inode or "", []).append(origin)
            made.whole = next(blobs, None) is None
        except StoreRefused as error:
            made.refused = str(error)
        return made


def _origin(name: str, stored: Stored) -> Origin | None:
    if stored.inode is None or stored.crc64 is None:
        return None
    return Origin(name, stored.size, stored.crc64, stored.born)

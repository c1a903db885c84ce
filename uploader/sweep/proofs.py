"""The files that this process saw the store confirm, and when each may be deleted."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import orjson

from uploader.share.fingerprint import Fingerprint
from uploader.share.handle import Handle

MAX_PROOFS = 100_000  # about 1,500 bytes each; about any other file the store is asked
MAX_ASIDE = 1000
Key = tuple[str, str]
"""A session, and a path below its folder."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A file whose content the store has confirmed. `file`: what it was after our last step; `crc64`: of its content.

    `certain`: the times of `file` are enough; otherwise the content is compared once more before the deletion.
    `receipt`: the line that has to be on the share's disk before the deletion. `replaced`: other content was under
    the blob's name; `seen`: this process sent the file.
    """

    file: Fingerprint
    born: int | None
    crc64: int
    certain: bool
    receipt: bytes
    replaced: bool
    seen: bool

    @property
    def sent_as(self) -> str:
        """The path that its receipt has: a folder may have been renamed since."""
        return str(orjson.loads(self.receipt)["path"])

    @property
    def etag(self) -> str:
        """The etag of its blob."""
        return str(orjson.loads(self.receipt)["etag"])

    @property
    def content(self) -> tuple[str, int, str]:
        """Its time of last change, its size and its CRC64, as its receipt has them."""
        line = orjson.loads(self.receipt)
        return line["mtime"], line["size"], line["crc64"]

    @property
    def spares(self) -> bool:
        """Whether the store still has what was under the blob's name before: the same content, or a snapshot of it."""
        before = orjson.loads(self.receipt)["replaced"]
        return before is None or before["snapshot"] is not None

    @property
    def inode(self) -> int:
        """The file's inode."""
        return self.file.inode

    def of(self, other: Handle) -> bool:
        """Tell whether this is the file, changed or not. An inode is given again when its file is deleted."""
        return other.now == self.file or (other.now.inode == self.inode and other.born() == self.born)

    def surely(self, other: Handle) -> bool:
        """Tell the same of a file of another name: without births only one that nothing has happened to is known."""
        return other.now == self.file or (self.born is not None and self.of(other))


class Proofs:
    """At most MAX_PROOFS files; the oldest is dropped, and the store asked about that file again. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[Proof, float]] = {}  # and when it is due; the oldest first
        self._written: dict[Key, Proof] = {}  # those of them whose receipt is on the share's disk
        self._paths: dict[tuple[str, int], str] = {}  # by session and inode: a folder may be renamed
        # By session and inode too: files whose folder was renamed, and made again with a file of the same name.
        self._aside: dict[tuple[str, int], tuple[Proof, float]] = {}

    def add(self, key: Key, proof: Proof, wait: float) -> None:
        """Note a file that the store has; `wait`: seconds until it may be deleted."""
        with self._lock:
            self._add(key, proof, time.monotonic() + wait)

    def _add(self, key: Key, proof: Proof, due: float) -> None:
        written, before = self._written.get(key), self._known.get(key)
        if before and before[0].inode != proof.inode and proof.spares:
            self._aside[key[0], before[0].inode] = before
            if len(self._aside) > MAX_ASIDE:
                del self._aside[next(iter(self._aside))]
        self._forget(key)  # the newest stand last, even of a name that comes again
        self._known[key] = (proof, due)
        if written is proof:
            self._written[key] = proof
        self._paths[key[0], proof.inode] = key[1]
        if len(self._known) > MAX_PROOFS:
            self._forget(next(iter(self._known)))

    def _forget(self, key: Key) -> None:
        known = self._known.pop(key, None)
        self._written.pop(key, None)
        if known and self._paths.get(at := (key[0], known[0].inode)) == key[1]:
            del self._paths[at]

    def unwritten(self, key: Key) -> Proof | None:
        """Return the proof of a file whose receipt is not on the share's disk yet."""
        with self._lock:
            proof = known[0] if (known := self._known.get(key)) else None
            return None if proof is self._written.get(key) else proof

    def written(self, proofs: Iterable[tuple[Key, Proof]]) -> None:
        """Note that the receipts of these files are on the share's disk."""
        with self._lock:
            for key, proof in proofs:
                if key in self._known and self._known[key][0] is proof:
                    self._written[key] = proof

    def receipted(self, key: Key) -> bool:
        """Tell whether the file is known, and its receipt on the share's disk."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[0] is self._written.get(key)

    def leaving(self) -> dict[str, list[tuple[Key, Proof]]]:
        """Return by session the files that this process sent and that are next to be dropped, without receipts."""
        found: dict[str, list[tuple[Key, Proof]]] = {}
        with self._lock:
            if len(self._known) >= MAX_PROOFS and not self._settled(next(iter(self._known))):
                for key in islice(self._known, max(1, MAX_PROOFS // 100)):
                    if not self._settled(key):
                        found.setdefault(key[0], []).append((key, self._known[key][0]))
        return found

    def _settled(self, key: Key) -> bool:
        proof = self._known[key][0]
        return not proof.seen or proof is self._written.get(key)

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

    def unwritten_paths(self, session: str) -> list[str]:
        """Return the known files of a session whose receipts are not on the share's disk."""
        with self._lock:
            known = self._known.items()
            return [key[1] for key, one in known if key[0] == session and self._written.get(key) is not one[0]]

    def moved(self, key: Key, file: Handle) -> Proof | None:
        """Return what is known of this file under another name, and know it under this name from now on.

        What was known under this name goes to the other one: folders may have exchanged theirs. Its receipt keeps the
        name under which it was sent.
        """
        file.born()  # asks the share, once: not with the lock held
        with self._lock:
            aside = self._aside.get(at := (key[0], file.now.inode))
            if aside and aside[0].surely(file):
                del self._aside[at]
                self._add(key, *aside)
                return aside[0]
            other = (key[0], self._paths.get(at, key[1]))
            here, there = self._known.get(key), self._known.get(other)
            if other == key or there is None or not there[0].surely(file):
                return None
            written = {new: self._written.get(old) for new, old in ((key, other), (other, key))}
            self._forget(other)
            self._add(key, *there)
            if here:
                self._add(other, *here)
            self._written.update({new: proof for new, proof in written.items() if proof})
            return there[0]

    def waits(self, key: Key) -> bool:
        """Tell whether the file is known and may not be deleted yet."""
        with self._lock:
            known = self._known.get(key)
            return known is not None and known[1] > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a file that is deleted, or is no longer the file that was committed."""
        with self._lock:
            self._forget(key)

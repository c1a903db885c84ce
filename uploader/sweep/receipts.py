"""Receipts: a line for each file that is deleted from the share, on its disk before the deletion (I11).

A crash between the two makes a second line, which readers drop by (path, inode, mtime, etag): an inode is given again,
and `cp -p` gives an mtime again, but each delivery has its own etag. A file that was written to
after its line was made is sent again: another line names that one by its place (`taken_back`), and it counts no more,
in whatever order the journals are read.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import orjson

from uploader.blob.checksum import crc64_header
from uploader.blob.store import Committed, rfc3339
from uploader.share.fingerprint import Fingerprint
from uploader.share.journal import Journals, Line
from uploader.share.mount import Share
from uploader.telemetry.text import shown

BITS = 26  # of a hash; two such numbers are kept of each line, in 8 MiB for all of them
Key = tuple[str, int, str, object]
"""A path, an inode, a time of last change as RFC 3339, and the blob's etag."""
Place = tuple[str, int]
"""A journal, and where a line ends in it."""
Written = tuple[Line, dict[str, Any]]
"""A line and the receipt in it."""
Totals = tuple[int, int, int]
"""Files, their bytes, and how many of them took the place of other content."""


def receipt(session: str, path: str, blob: str, file: Fingerprint, done: Committed, **more: object) -> bytes:
    """Return the line about a file that the store has. `more`: shard, attempts (None: not known)."""
    label = done.label
    fields = {
        "session": session,
        "path": shown(path),
        "blob": shown(blob),
        "size": label.size,
        "crc64": crc64_header(label.crc64),
        "md5": label.md5.hex() if label.md5 else None,
        "etag": done.etag,
        "mtime": rfc3339(file.mtime_ns),
        "inode": file.inode,
        "committed": done.at,
        **more,
        "replaced": done.replaced,
    }
    text = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    return bytes(memoryview(text))  # a copy: what orjson returns holds 4 KiB, and of these up to 100,000 are kept


def taken_back(line: Line) -> bytes:
    """Return the line by which this one, a receipt, counts no more."""
    path = orjson.loads(line.text)["path"]
    return orjson.dumps({"path": path, "taken_back": line.place}, option=orjson.OPT_APPEND_NEWLINE)


class Receipts:
    """The receipts of all sessions of a shard. Thread-safe. Every method may raise OSError."""

    def __init__(self, share: Share, ordinal: int) -> None:
        self.share = share
        self.ordinal = ordinal
        self._lock = threading.Lock()
        self._journals: dict[str, Journals] = {}
        self._counted: dict[str, tuple[Mapping[str, int], Totals]] = {}  # by session, with the sizes that were read

    def write(self, session: str, lines: Iterable[bytes]) -> None:
        """Have these lines on the share's disk on return."""
        with self._lock:
            self._journals.setdefault(session, self.of(session)).append(b"".join(lines))

    def of(self, session: str) -> Journals:
        """Return a session's journals, for reading."""
        return Journals(self.share, session, self.ordinal)

    def forget(self, session: str, sizes: Mapping[str, int]) -> bool:
        """Remove a session's journals if they are still what these sizes say; False when not."""
        with self._lock:
            self._journals.pop(session, None)
            self._counted.pop(session, None)
            return self.of(session).remove(sizes)

    def read(self, session: str) -> Iterator[dict[str, Any]]:
        """Yield the receipts of a session, each once. Memory: 8 MiB, and 100 bytes for each that is there twice."""
        journals = self.of(session)
        sizes = journals.sizes()
        if sizes:
            yield from distinct(lambda: journals.lines(sizes))

    def lines(self, session: str, after: Place) -> Iterator[Written]:
        """Yield each receipt with its line from a place on; after a crash one may be there twice, or count no more."""
        journals = self.of(session)
        for line, one in _parsed(journals.lines(journals.sizes(), after)):
            if "taken_back" not in one:
                yield line, one

    def count(self, session: str) -> Totals:
        """Return what the receipts say. The journals are read only if they have changed since they were counted."""
        journals = self.of(session)
        sizes = journals.sizes()
        known = self._counted.get(session)
        if known is None or known[0] != sizes:
            known = self._counted[session] = sizes, _totals(lambda: journals.lines(sizes)) if sizes else (0, 0, 0)
        return known[1]

    def about(self, session: str, files: Collection[tuple[str, int]]) -> list[Written]:
        """Return the receipts of these paths and inodes, with their lines; after a crash one may be there twice."""
        journals = self.of(session)
        found: list[Written] = []
        void = set[Place]()
        for line, one in _parsed(journals.lines(journals.sizes())):
            if place := one.get("taken_back"):
                void.add((place[0], place[1]))
            elif (one["path"], one["inode"]) in files:
                found.append((line, one))
        return [(line, one) for line, one in found if line.place not in void]

    def among(self, session: str, files: Mapping[str, Fingerprint]) -> set[str]:
        """Return the paths of those of these files of which, by path and inode, there are receipts."""
        wanted = {(shown(path), file.inode): path for path, file in files.items()}
        return {wanted[one["path"], one["inode"]] for _, one in self.about(session, wanted)}

    def has(self, session: str, path: str, inode: int, mtime: str) -> bool:
        """Tell whether a file of this path, inode and mtime has a receipt."""
        return any(one["mtime"] == mtime for _, one in self.about(session, {(shown(path), inode)}))


def distinct(lines: Callable[[], Iterator[Line]]) -> Iterator[dict[str, Any]]:
    """Yield each receipt once, without those taken back. `lines` is called twice.

    The first pass finds what may be there twice, by two bits a line; only of that the second one remembers more.
    """
    first = _Pass()
    for _, one in _parsed(lines()):
        first.see(one)
    yield from first.distinct(lines())


def _totals(lines: Callable[[], Iterator[Line]]) -> Totals:
    """Add the receipts up. `lines` is called once, and again where one may be there twice or was taken back."""
    first = _Pass()
    totals = _sum(first.see(one) for _, one in _parsed(lines()))
    return totals if first.plain else _sum(first.distinct(lines()))


def _sum(receipts: Iterable[dict[str, Any]]) -> Totals:
    files = size = replaced = 0
    for one in receipts:
        if "taken_back" not in one:
            files += 1
            size += one["size"]
            replaced += one.get("replaced") is not None
    return files, size, replaced


class _Pass:
    """What one pass over all the lines has found."""

    def __init__(self) -> None:
        self._seen = bytearray(1 << BITS - 3)
        # Of the keys that may be there twice, by their hash: whether one was yielded. A million have two with the same
        # hash with a chance of 1 in 10^6.
        self._suspects: dict[int, bool] = {}
        self._void = set[Place]()

    @property
    def plain(self) -> bool:
        """Whether each line is a receipt that counts."""
        return not self._suspects and not self._void

    def see(self, one: dict[str, Any]) -> dict[str, Any]:
        """Take note of one line, and return it."""
        if place := one.get("taken_back"):
            self._void.add((place[0], place[1]))
            return one
        hashed = hash(_key(one))
        again = True
        for bit in (hashed & (1 << BITS) - 1, hashed >> BITS & (1 << BITS) - 1):
            again = bool(self._seen[bit >> 3] >> (bit & 7) & 1) and again
            self._seen[bit >> 3] |= 1 << (bit & 7)
        if again:
            self._suspects[hashed] = False
        return one

    def distinct(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """Yield each receipt of the same lines once, without those taken back."""
        for line, one in _parsed(lines):
            if "taken_back" in one or line.place in self._void:
                continue
            if told := self._suspects.get(hashed := hash(_key(one))):
                continue
            if told is not None:
                self._suspects[hashed] = True
            yield one


def _parsed(lines: Iterator[Line]) -> Iterator[Written]:
    """Read leniently: what is torn or not ours is passed over."""
    for line in lines:
        try:
            one = orjson.loads(line.text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(one, dict) and _whole(one):
            yield line, one


def _whole(one: dict[str, Any]) -> bool:
    if (place := one.get("taken_back")) is not None:
        return isinstance(place, list) and [type(part) for part in place] == [str, int]
    kinds = (one.get("path"), str), (one.get("inode"), int), (one.get("mtime"), str), (one.get("size"), int)
    return all(type(value) is kind for value, kind in kinds)


def _key(one: dict[str, Any]) -> Key:
    return one["path"], one["inode"], one["mtime"], one.get("etag")

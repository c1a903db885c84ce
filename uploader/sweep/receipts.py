"""Receipts: a line for each file that is deleted from the share, on its disk before the deletion (I11).

A crash between the two makes a second line, which readers drop by (path, inode, mtime). A file that was written to
after its line was made is sent again: a line with `taken_back` says so, and the first one counts no more.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from uploader.blob.checksum import crc64_header
from uploader.blob.store import Committed, rfc3339
from uploader.share.fingerprint import Fingerprint
from uploader.share.journal import Journals, Line
from uploader.share.mount import Share
from uploader.telemetry.text import shown

BITS = 26  # of a hash; two such numbers are kept of each line, in 8 MiB for all of them
Key = tuple[str, int, str]
"""A path, an inode, and a time of last change as RFC 3339."""


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
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def key(path: str, file: Fingerprint) -> Key:
    """Return what the receipts of one file have in common."""
    return shown(path), file.inode, rfc3339(file.mtime_ns)


def taken_back(line: bytes) -> bytes:
    """Return the line by which this one, a receipt, counts no more."""
    written = orjson.loads(line)
    fields = {name: written[name] for name in ("path", "inode", "mtime")}
    return orjson.dumps({**fields, "taken_back": True}, option=orjson.OPT_APPEND_NEWLINE)


class Receipts:
    """The receipts of all sessions of a shard. Thread-safe. Every method may raise OSError."""

    def __init__(self, share: Share, ordinal: int) -> None:
        self.share = share
        self.ordinal = ordinal
        self._lock = threading.Lock()
        self._journals: dict[str, Journals] = {}

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
            return self.of(session).remove(sizes)

    def read(self, session: str) -> Iterator[dict[str, Any]]:
        """Yield the receipts of a session, each once. Memory: 8 MiB, and what is there twice."""
        journals = self.of(session)
        sizes = journals.sizes()
        if sizes:
            yield from distinct(lambda: journals.lines(sizes))

    def lines(self, session: str, after: tuple[str, int]) -> Iterator[tuple[Line, dict[str, Any]]]:
        """Yield each receipt with its line from a place on; after a crash one may be there twice."""
        journals = self.of(session)
        for line in journals.lines(journals.sizes(), after):
            for one in _parsed(iter((line,))):
                if "taken_back" not in one:
                    yield line, one

    def count(self, session: str) -> tuple[int, int, int]:
        """Return how many files have a receipt, their bytes, and how many took the place of other content."""
        files = size = replaced = 0
        for one in self.read(session):
            files += 1
            size += one["size"]
            replaced += one.get("replaced") is not None
        return files, size, replaced

    def among(self, session: str, files: Mapping[str, Fingerprint]) -> set[str]:
        """Return the paths of those of these files that have a receipt."""
        wanted = {key(path, file): path for path, file in files.items()}
        return {wanted[found] for one in self.read(session) if (found := _key(one)) in wanted}

    def has(self, session: str, path: str, inode: int, mtime: str) -> bool:
        """Tell whether a file of this path, inode and mtime has a receipt."""
        return any(_key(one) == (shown(path), inode, mtime) for one in self.read(session))


def distinct(lines: Callable[[], Iterator[Line]]) -> Iterator[dict[str, Any]]:
    """Yield each receipt once, without those taken back. `lines` is called three times at most.

    The first pass finds what may be there twice, by two bits a line; only of that the second one remembers more.
    """
    suspects = _suspects(lines())
    last: dict[Key, dict[str, Any]] = {}
    for one in _parsed(lines()):
        if hash(found := _key(one)) not in suspects:
            yield one
        else:
            last[found] = one
    yield from (one for one in last.values() if "taken_back" not in one)


def _suspects(lines: Iterator[Line]) -> set[int]:
    seen, suspects = bytearray(1 << BITS - 3), set()
    for one in _parsed(lines):
        hashed = hash(_key(one))
        again = True
        for bit in (hashed & (1 << BITS) - 1, hashed >> BITS & (1 << BITS) - 1):
            again = bool(seen[bit >> 3] >> (bit & 7) & 1) and again
            seen[bit >> 3] |= 1 << (bit & 7)
        if again or "taken_back" in one:
            suspects.add(hashed)
    return suspects


def _parsed(lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
    """Read leniently: what is torn or not ours is passed over."""
    for line in lines:
        try:
            one = orjson.loads(line.text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(one, dict) and _whole(one):
            yield one


def _whole(one: dict[str, Any]) -> bool:
    size = 0 if "taken_back" in one else one.get("size")
    kinds = (one.get("path"), str), (one.get("inode"), int), (one.get("mtime"), str), (size, int)
    return all(type(value) is kind for value, kind in kinds)


def _key(one: dict[str, Any]) -> Key:
    return one["path"], one["inode"], one["mtime"]

"""What must have become of every file of a session that has ended, what is seen of that, and where the two differ."""

import hashlib
import os
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.endpoint.operations import checksum
from uploader.blob.store import rfc3339

Fields = dict[str, Any]
NO_FILE = b"no regular file"


def text(path: str) -> str:
    """Return a path as answers and receipts write it: bytes that are not UTF-8 become escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def print_of(content: bytes) -> tuple[int, str, str]:
    """Return length, CRC64 and MD5 as a receipt has them."""
    crc64 = b64encode(checksum(content).to_bytes(8, "little")).decode()
    return len(content), crc64, hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Expected:
    """By path: the receipts of the files `sent` and the content on the share of those `left`; by name: the `blobs`.

    `reasons`: a part of what the result has to say of each file that it has to name. `failed`: how many of them failed.
    """

    session: str
    began: str
    drained: bool
    sent: dict[str, Fields] = field(default_factory=dict)
    blobs: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    left: dict[str, bytes] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    def send(self, path: str, content: bytes, look: os.stat_result) -> None:
        """Expect a file in the store, and its receipt."""
        size, crc64, md5 = print_of(content)
        blob = f"{self.session}/{path}"
        self.blobs[blob] = size, crc64, md5
        self.sent[path] = {
            "session": self.session, "path": path, "blob": blob, "size": size, "crc64": crc64, "md5": md5,
            "inode": look.st_ino, "mtime": rfc3339(look.st_mtime_ns), "replaced": None,
        }  # fmt: skip

    @property
    def receipts(self) -> str:
        """The blob of the session's receipts."""
        return f"{self.session}/.receipts/{self.began}.jsonl.gz"


@dataclass
class Seen:
    """`results`: the result as each way of asking gives it. `own`: what nfs-watch has of the session on the share."""

    results: dict[str, Fields]
    waited: int
    verified: Fields
    receipts: list[Fields]
    blobs: dict[str, tuple[int, str, str]]
    etags: dict[str, str]
    share: dict[str, bytes]
    own: list[str]


def differences(expected: Expected, seen: Seen) -> list[str]:
    """Name everything in which they differ; nothing: the result is exact."""
    return [*_receipts(expected, seen), *_results(expected, seen), *_rest(expected, seen)]


def _receipts(expected: Expected, seen: Seen) -> Iterator[str]:
    times = Counter(one["path"] for one in seen.receipts)
    yield from (f"receipts: {path!r} has {number}" for path, number in times.items() if number > 1)
    found = {one["path"]: one for one in seen.receipts}
    for name in ("session", "blob", "size", "crc64", "md5", "inode", "mtime", "replaced"):
        wanted = {path: one[name] for path, one in expected.sent.items()}
        yield from _differ(f"receipts, {name}", wanted, {path: one[name] for path, one in found.items()})
    sent = {one["blob"] for one in expected.sent.values()}
    etags = {name: etag for name, etag in seen.etags.items() if name in sent}
    yield from _differ("receipts, etag", etags, {one["blob"]: one["etag"] for one in seen.receipts})


def _results(expected: Expected, seen: Seen) -> Iterator[str]:
    sizes = [one["size"] for one in expected.sent.values()]
    wanted = {
        "session": expected.session, "began": expected.began, "drained": expected.drained, "bytes": sum(sizes),
        "receipts": expected.receipts,
        "files": {"sent": len(sizes), "replaced": 0, "failed": expected.failed, "left_behind": len(expected.reasons)},
    }  # fmt: skip
    for who, result in seen.results.items():
        yield from _differ(f"result, {who}", wanted, result, only=True)
        named = {one["path"]: one["reason"] for one in result["left_behind"]}
        as_wanted = {path: part for path, part in expected.reasons.items() if part in named.get(path, "")}
        yield from _differ(f"left behind, {who}", expected.reasons, named | as_wanted)


def _rest(expected: Expected, seen: Seen) -> Iterator[str]:
    blobs = {name: content for name, content in seen.blobs.items() if name != expected.receipts}
    yield from _differ("store", expected.blobs, blobs)
    yield from _differ("share", expected.left, seen.share)
    yield from (f"share: {path} is still there" for path in seen.own)
    count = len(expected.sent)
    none = {"superseded": 0, "missing": 0, "changed": 0}
    said = {"receipts": count, "fine": count, **none, "expected": count, "good": True}
    yield from _differ("nfs-watch verify", said, seen.verified, only=True)
    yield from _differ("nfs-watch wait", {"exit code": 1 if expected.reasons else 0}, {"exit code": seen.waited})


def _differ(what: str, wanted: Fields, found: Fields, *, only: bool = False) -> Iterator[str]:
    """Name each key whose values differ; `only`: of those wanted."""
    for key in wanted if only else wanted | found.keys():
        if key not in found:
            yield f"{what}: no {key!r}"
        elif key not in wanted:
            yield f"{what}: {key!r} should not be there"
        elif wanted[key] != found[key]:
            yield f"{what}: {key!r} is {_short(found[key])}, not {_short(wanted[key])}"


def _short(value: object) -> str:
    return repr(value)[:200]

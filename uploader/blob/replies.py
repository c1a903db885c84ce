"""Reads the service's answers about a blob, and checks them: something on the way may have answered instead."""

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

from uploader.blob.checksum import decoded
from uploader.blob.store import Blocks, Stored
from uploader.errors import StoreRefused

_META = "x-ms-meta-"
SNAPSHOT = re.compile(r"[0-9T:.-]+Z", re.ASCII)  # a snapshot's id is its time
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
Listed = tuple[str, str, Stored]
"""A blob's name, the id of its snapshot or "", and what it is."""


def stored(headers: Mapping[str, str]) -> Stored:
    """Read the headers that describe a committed blob. Raises StoreRefused."""
    crc, md5 = decoded(headers.get("x-ms-meta-crc64")), decoded(headers.get("Content-MD5"))
    return Stored(
        size=length(headers),
        etag=etag(headers),
        crc64=int.from_bytes(crc, "little") if crc and len(crc) == 8 else None,
        md5=md5,
        inode=headers.get("x-ms-meta-inode"),
        born=headers.get("x-ms-meta-born"),
        modified=_time(headers.get("Last-Modified")),
        metadata={key[len(_META) :]: value for key, value in headers.items() if key.lower().startswith(_META)},
    )


def listed(content: bytes) -> Blocks:
    """Read a list of blocks, in which the etag is missing. Raises StoreRefused."""
    lists = _xml(content, "BlockList", "the list of blocks")
    blocks = lists.findall("CommittedBlocks/Block")
    # The content of a Put Blob is no block; some emulators list it as a block without a name.
    committed = [_id(block) for block in blocks] if any(block.findtext("Name") for block in blocks) else []
    waiting = lists.iterfind("UncommittedBlocks/Block")
    return Blocks({_id(block): _number(block.findtext("Size"), "a block's size") for block in waiting}, committed, None)


def snapshot_id(headers: Mapping[str, str]) -> str:
    """Return the id of a new snapshot. Raises StoreRefused."""
    if found := headers.get("x-ms-snapshot"):
        return found
    raise _unusable("the snapshot's id is missing")


def blobs(content: bytes) -> tuple[Iterator[Listed], str]:
    """Read one page of a list of blobs, and where the next page begins, "" for nowhere.

    Raises StoreRefused, also while it is read.
    """
    page = _xml(content, "EnumerationResults", "the list of blobs")
    return (_blob(blob) for blob in page.iterfind("Blobs/Blob")), page.findtext("NextMarker") or ""


def _blob(blob: ET.Element) -> Listed:
    said = {part.tag: part.text or "" for part in blob.iterfind("Properties/*")}
    said["ETag"] = said.get("Etag", "")
    said |= {_META + part.tag: part.text or "" for part in blob.iterfind("Metadata/*")}
    return blob.findtext("Name") or "", blob.findtext("Snapshot") or "", stored(said)


def etag(headers: Mapping[str, str]) -> str:
    """Return the ETag of a blob. Raises StoreRefused."""
    if found := headers.get("ETag"):
        return found
    raise _unusable("the ETag is missing")


def length(headers: Mapping[str, str]) -> int:
    """Return the size of a blob in bytes. Raises StoreRefused."""
    return _number(headers.get("Content-Length"), "the Content-Length")


def _time(text: str | None) -> str | None:
    try:
        return parsedate_to_datetime(text).isoformat(timespec="milliseconds").replace("+00:00", "Z") if text else None
    except (ValueError, OverflowError):
        return None


def _xml(content: bytes, root: str, what: str) -> ET.Element:
    try:
        found = ET.fromstring(content)  # noqa: S314 the store is trusted with the files themselves
    except (ET.ParseError, ValueError, LookupError) as error:
        raise _unusable(f"{what} is not XML ({error})") from error
    if found.tag != root:
        raise _unusable(f"{what} has the root element {found.tag[:100]!r}")
    return found


def _id(block: ET.Element) -> str:
    name = block.findtext("Name", "")
    if not decoded(name):
        raise _unusable(f"a block's id is {name[:100]!r}")
    return name


def _number(text: str | None, what: str) -> int:
    if text is None or not _NUMBER.fullmatch(text):
        raise _unusable(f"{what} is {(text or '')[:100]!r}")
    return int(text)


def _unusable(why: str) -> StoreRefused:
    return StoreRefused(f"the blob store's answer cannot be used: {why}; does something on the way answer for it?")

"""Reads the service's answers about a blob, and checks them: something on the way may have answered instead."""

import re
from base64 import b64decode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

from uploader.blob.store import Blocks, Stored
from uploader.errors import StoreRefused

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


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
    )


def listed(content: bytes) -> Blocks:
    """Read a list of blocks, in which the etag is missing. Raises StoreRefused."""
    try:
        lists = ET.fromstring(content)  # noqa: S314 the store is trusted with the files themselves
    except (ET.ParseError, ValueError, LookupError) as error:
        raise _unusable(f"the list of blocks is not XML ({error})") from error
    if lists.tag != "BlockList":
        raise _unusable(f"the list of blocks has the root element {lists.tag[:100]!r}")
    blocks = lists.findall("CommittedBlocks/Block")
    # The content of a Put Blob is no block; some emulators list it as a block without a name.
    committed = [_id(block) for block in blocks] if any(block.findtext("Name") for block in blocks) else []
    waiting = lists.iterfind("UncommittedBlocks/Block")
    return Blocks({_id(block): _number(block.findtext("Size"), "a block's size") for block in waiting}, committed, None)


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


def decoded(text: str | None) -> bytes | None:
    """Decode base64 that any tool may have written; None when there is none, or it is invalid."""
    try:
        return b64decode(text, validate=True) if text else None
    except ValueError:
        return None


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

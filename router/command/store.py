"""The store, as the settings of a shard say: what it has under a blob's name, and a session's sealed receipts."""

import gzip
import io
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import orjson

from uploader.blob.azure import AzureBlobs
from uploader.blob.store import Stored
from uploader.environment import read
from uploader.errors import BadConfiguration, Declined, Misused, StoreAway, StoreError, Unreachable
from uploader.settings import StoreSettings

Fields = dict[str, Any]
PART = 4 * 1024 * 1024  # bytes of packed receipts that are read at a time


class Store:
    """The container that receipts are compared with. Nothing is written. Thread-safe.

    Calls raise Unreachable when the store does not answer, Misused for wrong settings, Declined for any other answer.
    """

    def __init__(self) -> None:
        """Read the environment. Asks nobody."""
        try:
            self._blobs = AzureBlobs(read(StoreSettings), create=False)
        except BadConfiguration as error:
            raise Misused(str(error)) from error
        self.container = self._blobs.container

    def verdict(self, receipt: Fields) -> str:
        """Return what has become of a receipt's blob: fine, missing, or how it was changed."""
        found = self._head(receipt["blob"])
        if found is None:
            return "missing"
        if _plain(found.etag) == _plain(receipt["etag"]):
            return "fine"
        if found.size != receipt["size"]:
            return f"changed: {found.size} bytes instead of {receipt['size']}"
        return "fine" if _same(found, receipt) else "changed: other content"

    def receipts(self, blob: str) -> Iterator[Fields] | None:
        """Return the lines of a session's sealed receipts one by one, None when there is no such blob."""
        found = self._head(blob)
        return None if found is None else self._lines(blob, found)

    def _lines(self, blob: str, found: Stored) -> Iterator[Fields]:
        try:
            with gzip.open(io.BufferedReader(_Parts(self._blobs, blob, found), PART)) as lines:
                for line in lines:
                    yield orjson.loads(line)
        except StoreError as error:
            raise _ended(error) from error
        except (EOFError, gzip.BadGzipFile, ValueError, OSError) as error:
            raise Declined({"code": "receipts-damaged", "detail": f"{blob} cannot be read: {error}"}) from error

    def _head(self, blob: str) -> Stored | None:
        try:
            return self._blobs.head(blob)
        except BadConfiguration as error:
            raise Misused(str(error)) from error
        except StoreError as error:
            raise _ended(error) from error


class _Parts(io.RawIOBase):
    """A blob as a file that is read from its beginning to its end."""

    def __init__(self, blobs: AzureBlobs, name: str, found: Stored) -> None:
        self._blobs, self._name, self._found = blobs, name, found
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 as io
        size = min(len(buffer), self._found.size - self._at)
        if size:
            buffer[:size] = self._blobs.part(self._name, self._at, size, self._found.etag)
            self._at += size
        return size


def _same(found: Stored, receipt: Fields) -> bool:
    """Compare checksums: the CRC64 that nfs-watch wrote, and the MD5 where both have one."""
    crc = int.from_bytes(b64decode(receipt["crc64"]), "little")
    if found.md5 and receipt["md5"] and found.md5.hex() != receipt["md5"]:
        return False
    return found.crc64 == crc or (found.crc64 is None and bool(found.md5 and receipt["md5"]))


def _plain(etag: str) -> str:
    return etag.strip('"')


def _ended(error: StoreError) -> Unreachable | Declined:
    if isinstance(error, StoreAway):
        return Unreachable(str(error))
    return Declined({"code": "store-refused", "detail": str(error)})

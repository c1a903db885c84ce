"""CRC-64/NVME, which Azure calls CRC64, and how headers write checksums."""

from base64 import b64decode, b64encode
from hashlib import md5
from typing import cast

from awscrt.checksums import combine_crc64nvme, crc64nvme

Content = bytes | bytearray | memoryview


def crc64(data: Content, previous: int = 0) -> int:
    """Return the CRC64 of the data, continued from `previous`. The CRC64 of b"123456789" is 0xae8b14860a799888."""
    return int(crc64nvme(cast("bytes", data), previous))  # the function takes any buffer


def joined(first: int, second: int, length: int) -> int:
    """Return the CRC64 of two joined pieces from the CRC64 of each; `length`: bytes of the second."""
    return int(combine_crc64nvme(first, second, length))


def crc64_header(value: int) -> str:
    """Return a CRC64 as x-ms-content-crc64 writes it: base64 of its 8 bytes, little-endian."""
    return b64encode(value.to_bytes(8, "little")).decode()


def md5_header(data: Content) -> str:
    """Return the MD5 of the data as Content-MD5 writes it."""
    return b64encode(md5(data, usedforsecurity=False).digest()).decode()


def decoded(text: str | None) -> bytes | None:
    """Decode base64 that any tool may have written; None when there is none, or it is invalid."""
    try:
        return b64decode(text, validate=True) if text else None
    except ValueError:
        return None

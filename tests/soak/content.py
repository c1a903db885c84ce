"""The content of the soak's files: name, version and size determine every byte, and no two blocks are equal."""

import random
from collections.abc import Iterator
from hashlib import blake2b

from awscrt.checksums import crc64nvme

BLOCK = 256 * 1024  # bytes; what the shards are told, so that a blob's blocks are the pieces below
_BASE = random.Random(20).randbytes(BLOCK)

Print = tuple[tuple[int, int], ...]
"""Length and CRC64 of each piece."""


def pieces(path: str, version: int, size: int) -> Iterator[bytes]:
    """Yield the content, at most BLOCK bytes at a time."""
    for number, offset in enumerate(range(0, size, BLOCK)):
        head = blake2b(f"{version}/{number}/{path}".encode("utf-8", "surrogateescape")).digest()
        yield (head + _BASE[len(head) :])[: min(BLOCK, size - offset)]


def fingerprint(path: str, version: int, size: int) -> Print:
    """Return the lengths and CRC64s that the store must have of this version."""
    return tuple((len(piece), crc64nvme(piece)) for piece in pieces(path, version, size))

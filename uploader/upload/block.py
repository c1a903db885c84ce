"""Blocks: where they begin and end, and ids that tell their content.

A block's id is its place and the CRC64 of its content, the same checksum that the service verified when it took the
block. So a block of a crashed upload can be trusted by its id alone, and two writers can never mix their contents.
"""

from base64 import b64decode, b64encode
from bisect import bisect
from collections.abc import Mapping

# learn.microsoft.com/azure/storage/blobs/scalability-targets: blocks of a committed blob
MAX_BLOCKS = 50_000
ID_LENGTH = 12  # bytes: 4 of the place, 8 of CRC64
SHORTEST_ID = 6  # bytes, where leftovers dictate the length: 2 of the place, 4 of CRC64
MIB = 1024 * 1024
SMALLEST = 256 * 1024  # bytes: on a slow line a large block is seconds that a kill loses


def block_id(place: int, crc: int, length: int = ID_LENGTH) -> str:
    """Return a block's id in base64; `length` in bytes.

    Shorter than ID_LENGTH: used only beside leftover blocks; a block with such an id is always sent again.
    """
    checksum = crc.to_bytes(8, "big")
    if length >= ID_LENGTH:
        raw = (place.to_bytes(4, "big") + checksum).ljust(length, b"\0")
    else:
        raw = (place.to_bytes(2, "big") + checksum).ljust(length, b"\0")[:length]  # MAX_BLOCKS fits
    return b64encode(raw).decode()


def block_size(size: int, wanted: int) -> int:
    """Return `wanted`, or the smallest number of whole MiB that keeps a file of `size` within MAX_BLOCKS; in bytes."""
    return wanted if size <= MAX_BLOCKS * wanted else -(-size // (MAX_BLOCKS * MIB)) * MIB


class Layout:
    """Where the blocks of one file begin and end. All but the last are `most` bytes, or a half of it, a quarter, ...

    The smallest of these sizes is the unit: a block's place is where it begins, in units. So the ids of the blocks that
    the store has tell where they lie, whatever sizes an earlier process has chosen.
    """

    def __init__(self, size: int, wanted: int) -> None:
        """`size`: bytes of the file; `wanted`: of its largest blocks."""
        self.size = size
        self.most = block_size(size, wanted)
        self.unit = self.most
        while self.unit % 2 == 0 and self.unit // 2 >= SMALLEST:
            self.unit //= 2
        self._there: dict[int, int] = {}
        self._begins: list[int] = []

    def resume(self, uncommitted: Mapping[str, int]) -> None:
        """Keep to the blocks that the store has: bytes by id."""
        self._there = {}
        for name, length in uncommitted.items():
            raw = b64decode(name)
            begin = int.from_bytes(raw[:4], "big") * self.unit
            whole = begin + length <= self.size if length % self.unit == 0 else begin + length == self.size
            if len(raw) >= ID_LENGTH and 0 < length <= self.most and whole:
                self._there[begin] = max(length, self._there.get(begin, 0))
        self._begins = sorted(self._there)

    def length(self, begin: int, count: int, wanted: int) -> int:
        """Return the bytes of the block after the first `count`, which begins at `begin`.

        `wanted`: about so many. Larger where the rest would not fit into MAX_BLOCKS.
        """
        left, blocks = self.size - begin, MAX_BLOCKS - count
        least = left - (blocks - 1) * self.most
        there = self._there.get(begin, 0)
        if there and there >= least:
            return there
        length = self.most
        while length > self.unit and length > wanted and length // 2 * blocks >= left:
            length //= 2
        following = bisect(self._begins, begin)
        gap = self._begins[following] - begin if following < len(self._begins) else left
        return min(length, left, gap) if gap >= least else min(length, left)

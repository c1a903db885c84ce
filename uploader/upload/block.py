"""Blocks: how large they are, and ids that tell their content.

A block's id is its index and the CRC64 of its content, the same checksum that the service verified when it took the
block. So a block of a crashed upload can be trusted by its id alone, and two writers can never mix their contents.
"""

from base64 import b64encode

# learn.microsoft.com/azure/storage/blobs/scalability-targets: blocks of a committed blob
MAX_BLOCKS = 50_000
ID_LENGTH = 12  # bytes: 4 of index, 8 of CRC64
SHORTEST_ID = 6  # bytes, where leftovers dictate the length: 2 of index, 4 of CRC64
MIB = 1024 * 1024


def block_id(index: int, crc: int, length: int = ID_LENGTH) -> str:
    """Return a block's id in base64; `length` in bytes.

    Shorter than ID_LENGTH: used only beside leftover blocks; a block with such an id is always sent again.
    """
    checksum = crc.to_bytes(8, "big")
    if length >= ID_LENGTH:
        raw = (index.to_bytes(4, "big") + checksum).ljust(length, b"\0")
    else:
        raw = (index.to_bytes(2, "big") + checksum).ljust(length, b"\0")[:length]  # MAX_BLOCKS fits
    return b64encode(raw).decode()


def block_size(size: int, wanted: int) -> int:
    """Return `wanted`, or the smallest number of whole MiB that keeps a file of `size` within MAX_BLOCKS; in bytes."""
    return wanted if size <= MAX_BLOCKS * wanted else -(-size // (MAX_BLOCKS * MIB)) * MIB

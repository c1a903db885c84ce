"""Which shard a session belongs to: rendezvous hashing over the ordinals 0 .. N-1.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998): every shard gets a score for the
name, and the highest score wins. A new shard takes its share of the names from all others; no other name moves.
"""

from hashlib import blake2b


def rank(name: str, shards: int) -> list[int]:
    """Return all ordinals below `shards`, best first. The same on every machine and in every process."""
    key = name.encode()

    def score(ordinal: int) -> bytes:
        return blake2b(key, digest_size=8, salt=ordinal.to_bytes(8, "little")).digest()

    return sorted(range(shards), key=score, reverse=True)

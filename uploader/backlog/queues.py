"""The queues between discovery and workers."""

from uploader.backlog.inventory import Inventory
from uploader.backlog.lane import Lane
from uploader.share.fingerprint import Fingerprint


class Queues:
    """Two lanes: small files have their own workers and never wait for large ones."""

    def __init__(self, block_size: int) -> None:
        """Files of at most `block_size` bytes are small."""
        self.block_size = block_size
        self.small = Lane()
        self.large = Lane()

    def lane(self, size: int) -> Lane:
        """Return the lane for files of `size` bytes."""
        return self.small if size <= self.block_size else self.large

    def add(self, files: Inventory) -> None:
        """Serve this session too."""
        self.small.add(files)
        self.large.add(files)

    def remove(self, files: Inventory) -> None:
        """Stop serving this session: drop its waiting files, set `cancelled` for uploads in progress."""
        files.cancel()
        self.small.remove(files)
        self.large.remove(files)

    def offer(self, files: Inventory, path: str, found: Fingerprint) -> bool:
        """Queue a file that is ready. False when there is no room for its kind, or the session has ended."""
        return self.lane(found.size).offer(files, path, found)

    def waits(self, files: Inventory) -> bool:
        """Tell whether a file of this session waits for a worker."""
        return self.small.waits(files) or self.large.waits(files)

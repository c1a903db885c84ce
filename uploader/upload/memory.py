"""The bound on file content in memory (I10), and buffers that are reused."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from uploader.turns import INTERPRETER


class Memory:
    """`limit` bytes in all. Requests are served in order of arrival, so that no file starves.

    `spare` bytes of the limit are not for blocks of large files: on a slow line a small file would wait long for them.
    """

    def __init__(self, limit: int, block_size: int) -> None:
        self.limit = limit
        self.spare = block_size if limit >= 4 * block_size else 0
        self.most = self.free = limit - self.spare  # what one request can ever get
        self.block_size = block_size
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._buffers: list[bytearray] = []

    def acquire(self, size: int) -> None:
        """Wait for room for `size` bytes."""
        with self._lock:
            if not size:
                return
            if not self._waiting and self.free >= size:
                self.free -= size
                return
            granted = threading.Event()
            self._waiting.append((size, granted))
        with INTERPRETER.away():
            granted.wait()

    def release(self, size: int) -> None:
        """Give room for `size` bytes back."""
        with self._lock:
            self.free += size
            while self._waiting and self.free >= self._waiting[0][0]:
                wanted, granted = self._waiting.popleft()
                self.free -= wanted
                granted.set()

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold room for `size` bytes inside the block, the spare room if that is free."""
        with self._lock:
            spared = size if size <= self.spare else 0
            self.spare -= spared
        self.acquire(size - spared)
        try:
            yield
        finally:
            self.release(size - spared)
            with self._lock:
                self.spare += spared

    def buffer(self, size: int) -> bytearray:
        """Wait for room and return a buffer of at least `size` bytes, a used one if possible: new pages cost time."""
        self.acquire(max(size, self.block_size))
        with self._lock:
            if size <= self.block_size and self._buffers:
                return self._buffers.pop()
        return bytearray(max(size, self.block_size))

    def give(self, buffer: bytearray) -> None:
        """Give a buffer back."""
        size = len(buffer)
        with self._lock:
            if size == self.block_size:
                self._buffers.append(buffer)
        self.release(size)

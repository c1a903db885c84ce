"""What of one body counts as sent: what was handed to the socket, each byte once however often it is sent."""

import time
from typing import Self

from uploader.errors import Cancelled
from uploader.upload.source import Source


class Handed:
    """The progress of one body of `size` bytes. At the end of the block all of it counts, or none when it failed."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size
        self._counted = 0
        self._whole = 0.0  # when the last try had handed all over, monotonic seconds

    def __call__(self, size: int) -> None:
        """Take note of the bytes that this try has handed over so far. Raises Cancelled, which ends the try.

        When all are handed over only the answer is missing: it is waited for.
        """
        self._count(size)
        if size < self._size and self._source.cancelled():
            raise Cancelled
        if size == self._size:
            self._whole = time.monotonic()

    def answered(self) -> float:
        """Return the seconds that the store took to answer when it had all, 0 when that is not known."""
        return time.monotonic() - self._whole if self._whole else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._count(0 if kind else self._size)

    def _count(self, size: int) -> None:
        if size != self._counted:
            more, self._counted = size - self._counted, size
            self._source.sent(more)

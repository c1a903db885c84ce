"""The blocks that are under way to the store: as many bytes as keep the line busy, and no more.

What is under way is what a kill costs, and what a later file waits for.
"""

import threading
from collections import deque
from collections.abc import Callable

from uploader.errors import Cancelled
from uploader.upload.block import SMALLEST
from uploader.upload.line import Line

AHEAD = 2.0  # seconds of the line that are under way, beside those for which the store makes it wait
BLOCKS = 4  # of these there are under way
LEAST = 2 * SMALLEST  # bytes: with one block alone the line would wait for each answer
LOOK = 0.5  # seconds between two looks at whether the file that waits is still wanted


class Flight:
    """The bytes under way. Blocks get their turn in the order in which they ask, whichever file they are of."""

    def __init__(self) -> None:
        self.size = 0
        self._line = Line()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    @property
    def wanted(self) -> int:
        """How many bytes the next block should have; 0: the line is not known yet."""
        return int(self._most() / BLOCKS)

    @property
    def most(self) -> int:
        """How many bytes may be under way; one block may be in any case."""
        return max(LEAST, int(self._most()))

    def _most(self) -> float:
        return (AHEAD + self._line.late) * self._line.rate

    def take(self, size: int, cancelled: Callable[[], bool]) -> None:
        """Wait for the turn of a block of `size` bytes. Raises Cancelled."""
        turn = size, threading.Event()
        with self._lock:
            self._waiting.append(turn)
            self._grant()
        while not turn[1].wait(LOOK):
            if cancelled():
                self._withdraw(turn)
                raise Cancelled

    def give(self, size: int, *, confirmed: bool, answered: float = 0.0) -> None:
        """Note that a block is no longer under way; `confirmed`: the store has it, and said so after `answered` s.

        Without these seconds a store with late answers would look like a slow line.
        """
        with self._lock:
            if confirmed:
                self._line.answered(answered)
                self._line.confirmed(size)
            self._free(size)

    def _withdraw(self, turn: tuple[int, threading.Event]) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._grant()
            else:
                self._free(turn[0])

    def _free(self, size: int) -> None:
        self.size -= size
        if not self.size:
            self._line.end()
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (not self.size or self.size + self._waiting[0][0] <= self.most):
            size, granted = self._waiting.popleft()
            if not self.size:
                self._line.begin()
            self.size += size
            granted.set()

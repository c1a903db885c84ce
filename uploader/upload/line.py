"""The line to the store: what it takes, measured while something is under way."""

import time
from collections import deque

SPAN = 2.0  # seconds under way that the rate is the mean of; a longer pause between two confirmations counts whole
STEP = 0.05  # seconds between two marks
ANSWERS = 8


class Line:
    """The rate of the bytes that the store has confirmed. Time in which nothing is under way does not count.

    Not thread-safe: its owner's lock guards it (flight.py).
    """

    def __init__(self) -> None:
        self.rate = 0.0
        """Bytes per second when the last bytes were confirmed; 0: nothing was confirmed yet."""
        self._since: float | None = None  # when something was under way again
        self._spent = 0.0  # seconds under way before that
        self._bytes = 0
        self._marks = deque([(0.0, 0)])
        self._answers = deque[float](maxlen=ANSWERS)

    def begin(self) -> None:
        """Note that something is under way, after nothing was."""
        self._since = time.monotonic()

    def confirmed(self, size: int) -> None:
        """Count `size` bytes that were under way."""
        now = self._under_way()
        self._bytes += size
        while len(self._marks) > 1 and self._marks[1][0] <= now - SPAN:
            self._marks.popleft()
        then, before = self._marks[0]
        self.rate = (self._bytes - before) / max(now - then, 1e-3)
        if now - self._marks[-1][0] >= STEP:
            self._marks.append((now, self._bytes))

    def answered(self, seconds: float) -> None:
        """Note how long the store took to answer after a body was handed over whole."""
        self._answers.append(seconds)

    @property
    def late(self) -> float:
        """Seconds that answers take in any case: the least of the last ANSWERS: a queue on the line makes some late."""
        return min(self._answers, default=0.0)

    def end(self) -> None:
        """Note that nothing is under way."""
        self._spent, self._since = self._under_way(), None

    def _under_way(self) -> float:
        return self._spent + (time.monotonic() - self._since if self._since is not None else 0.0)

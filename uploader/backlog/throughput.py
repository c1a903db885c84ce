"""The throughput of one session: bytes per second over the last METER_SECONDS seconds."""

import threading
import time
from collections import deque

METER_SECONDS = 10


class Throughput:
    """Counts bytes in marks a second apart. Thread-safe."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque([(self._last, 0)])

    def add(self, size: int) -> None:
        """Count `size` bytes; negative: so many that were counted are sent again."""
        now = time.monotonic()
        with self._lock:
            self.total += size
            self._last = now
            if now - self._marks[-1][0] >= 1:
                self._marks.append((now, self.total))
            while len(self._marks) > METER_SECONDS:
                self._marks.popleft()

    def rate(self) -> float:
        """Return bytes per second since the oldest mark, at most METER_SECONDS ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._last > METER_SECONDS:
                self._marks = deque([(now, self.total)])
                return 0.0
            while len(self._marks) > 1 and now - self._marks[1][0] > METER_SECONDS:
                self._marks.popleft()
            since, before = self._marks[0]
            return max(0, self.total - before) / max(now - since, 0.5)

"""Turns: how many threads with a small file run Python at once.

Each system call gives the interpreter's lock away, so that threads which could all run fight for it, and each call
costs a switch. With one turn there is nobody to fight with. A thread lets its turn go while it waits for the store
(`away`). Where the share is slow, one turn would leave the processor idle: the process's own CPU time tells whether
more turns help, unless other programs have the processors.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST = 64
PATIENCE = 0.5  # seconds that a thread waits for a turn before it goes on without one
PERIOD = 0.2  # seconds between two looks at how many turns there should be
# How many processors the process takes. Above MANY there are too many turns; below FEW too few, if FREE processors are
# idle; below LEAST too few in any case: other programs leave it more than that.
LEAST, FEW, MANY = 0.2, 0.75, 1.0
FREE = 0.25


class Turns:
    """One turn at the beginning, at most MOST. Thread-safe."""

    def __init__(
        self,
        cpu: Callable[[], float] = time.process_time,
        idle: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cpu`: seconds that the process has had a processor; `idle`: that processors of the machine were idle."""
        self.count = 1
        self._clocks = clock, cpu, idle or _idle
        self._lock = threading.Lock()
        self._out = 0
        self._waiting: deque[threading.Lock] = deque()
        self._crowded = False  # somebody had to wait since the last look
        self._looked = [read() for read in self._clocks]
        self._mine = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Run the block in a turn."""
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let another thread have this one's turn inside the block. Does nothing in a thread that has none."""
        if not self.taken():
            yield
            return
        self._give()
        try:
            yield
        finally:
            self._take()

    def taken(self) -> bool:
        """Tell whether this thread has a turn."""
        return getattr(self._mine, "taken", False)

    def _take(self) -> None:
        given: threading.Lock | None = None
        with self._lock:
            self._adapt()
            if self._out < self.count:
                self._out += 1
            else:
                self._crowded = True
                given = threading.Lock()
                given.acquire()
                self._waiting.append(given)
        self._mine.taken = given is None or self._waited(given)

    def _waited(self, given: threading.Lock) -> bool:
        """Wait for a turn; tell whether it came. Nobody waits for long for a share or a line that hangs."""
        if given.acquire(timeout=PATIENCE):
            return True
        with self._lock:
            if given not in self._waiting:
                return True
            self._waiting.remove(given)
            return False

    def _give(self) -> None:
        if self.taken():
            self._mine.taken = False
            with self._lock:
                self._out -= 1
                self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._out < self.count:
            self._out += 1
            self._waiting.popleft().release()

    def _adapt(self) -> None:
        """Look every PERIOD whether there should be more turns, or fewer."""
        clock, *_ = self._clocks
        if clock() - self._looked[0] < PERIOD:
            return
        now = [read() for read in self._clocks]
        took, used, free = (new - old for new, old in zip(now, self._looked, strict=True))
        if used > MANY * took:
            self.count = max(1, self.count - 1)
        elif self._crowded and (used < LEAST * took or (used < FEW * took and free > FREE * took)):
            self.count = min(MOST, self.count + (self.count + 1) // 2)
            self._hand_out()
        self._looked, self._crowded = now, False


def _idle() -> float:
    """Tell for how many seconds the machine's processors were idle; 0 always where the system does not tell."""
    try:
        with open("/proc/stat", "rb") as file:
            return int(file.readline().split()[4]) / os.sysconf("SC_CLK_TCK")
    except OSError:  # a sandbox that hides it
        return 0.0


INTERPRETER = Turns()  # there is one in a process

"""The large `.completed` files that have to be read before anything can be said of them."""

import threading

from uploader.sweep.proofs import Key

MOST = 1000  # files that wait; the next walk finds the others again


class Readings:
    """Who waits to be read, each once, in the order of arrival. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[Key, None] = {}
        self._added = threading.Condition()

    def add(self, key: Key) -> None:
        """Let a file wait, if there is room."""
        with self._added:
            if len(self._waiting) < MOST:
                self._waiting[key] = None
                self._added.notify()

    def next(self) -> Key:
        """Wait for a file, and return it."""
        with self._added:
            self._added.wait_for(lambda: self._waiting)
            key = next(iter(self._waiting))
            del self._waiting[key]
            return key

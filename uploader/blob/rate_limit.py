"""The upload rate limit, for sites that share their uplink."""

import threading
import time

CHUNK = 64 * 1024  # bytes sent at once when a limit is set: a small file waits for so many behind each sender
BURST = 0.1  # seconds' worth of bytes that may be sent at once after a pause


class RateLimit:
    """At most `limit` bytes per second, 0: no limit. Chunks take turns, so that a small file passes large ones."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, size: int) -> None:
        """Wait until `size` bytes may be sent."""
        if not self.limit:
            return
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now - BURST)
            self._next = start + size / self.limit
        if start > now:
            time.sleep(start - now)

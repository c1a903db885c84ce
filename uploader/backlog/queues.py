"""The queues between discovery and workers: bounded, and the sessions take turns."""

import threading
from collections import deque
from collections.abc import Iterator

from uploader.backlog.inventory import Files, Item
from uploader.share.fingerprint import Look


class Backlog:
    """The queues of all sessions. Workers take from them in turn, so that no session starves."""

    def __init__(self, block_size: int) -> None:
        """Files of at most `block_size` bytes are small: they have their own workers and never wait for large ones."""
        self.block_size = block_size
        self._lock = threading.Lock()
        self._wanted = {True: threading.Condition(self._lock), False: threading.Condition(self._lock)}
        self._room = threading.Condition(self._lock)
        self._sessions: deque[Files] = deque()

    def add(self, files: Files) -> None:
        """Serve this session too."""
        with self._lock:
            self._sessions.append(files)

    def remove(self, files: Files) -> None:
        """Serve it no more: what waits is dropped, what is under way is told by `cancelled`."""
        with self._lock:
            files.cancelled = True
            if files in self._sessions:
                self._sessions.remove(files)
            for item in [*files.small, *files.large]:
                files.known.pop(item.path, None)
            files.small.clear()
            files.large.clear()
            self._room.notify_all()

    def offer(self, files: Files, path: str, found: Look) -> bool:
        """Queue a file that is ready. False when there is no room for one of its size, or the session has ended."""
        failure = files.failures.get(path)
        with self._lock:
            small = found.size <= self.block_size
            queue = files.small if small else files.large
            if files.cancelled or len(queue) >= files.limit:
                return path in files.known
            item = Item(files, path, found, failure.attempts if failure else 0, found.size)
            if (known := files.known.setdefault(path, item)) is not item:
                files.passed_over |= known.swept
                return True
            files.settling.pop(path, None)
            queue.append(item)
            self._wanted[small].notify()
        return True

    def wait_for_room(self, files: Files, timeout: float) -> None:
        """Wait until a queue of small files that was full has drained to three quarters."""
        with self._lock:
            self._room.wait_for(lambda: files.cancelled or len(files.small) <= files.limit * 3 // 4, timeout)

    def take(self, *, small: bool) -> Item:
        """Wait for a file and take it; sessions in turn."""
        with self._lock:
            while True:
                for item in self._next(small=small):
                    item.files.busy[item.path] = item
                    self._made_room(item.files)
                    return item
                self._wanted[small].wait()

    def _next(self, *, small: bool) -> Iterator[Item]:
        for _ in range(len(self._sessions)):
            files = self._sessions[0]
            self._sessions.rotate(-1)
            if queue := files.small if small else files.large:
                yield queue.popleft()

    def _made_room(self, files: Files) -> None:
        """Wake who waits for room only when there is enough: to be woken for nothing costs two switches of threads."""
        if len(files.small) <= files.limit * 3 // 4:
            self._room.notify_all()

    def done(self, item: Item) -> None:
        """Forget a file that was taken, whatever became of it."""
        with self._lock:
            item.files.busy.pop(item.path, None)
            item.files.known.pop(item.path, None)
            item.files.finished += 1

"""The files of one kind, small or large, that wait for a worker: bounded for each session, and the sessions take turns.

Memory: in each lane and for each session `limit` new files and `limit` files that failed before, about 1 kB each.
Lock order: a lane's lock before an inventory's.
"""

import threading
from collections import deque

from uploader.backlog.inventory import Inventory, Item
from uploader.share.fingerprint import Fingerprint

OPEN = threading.Event()
OPEN.set()
AGAIN = 8  # of so many files taken one failed before, when files of both kinds wait


class Waiting:
    """The waiting files of one session: a queue of new files, and a queue of files that are tried again."""

    def __init__(self, files: Inventory) -> None:
        self.files = files
        self.new: deque[Item] = deque()
        self.again: deque[Item] = deque()
        self._taken = 0

    def queue(self, *, again: bool) -> deque[Item]:
        """Return the queue of new files, or of files that are tried again."""
        return self.again if again else self.new

    def take(self) -> Item | None:
        """Take a new file, or every AGAIN-th time a file that failed before; None when none waits."""
        self._taken += 1
        first, then = (self.again, self.new) if self._taken % AGAIN == 0 else (self.new, self.again)
        queue = first or then
        return queue.popleft() if queue else None

    def roomy(self) -> bool:
        """Tell whether a quarter of the queue of new files is free."""
        return len(self.new) <= self.files.limit * 3 // 4


class Lane:
    """The waiting files of all sessions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._sessions: dict[Inventory, Waiting] = {}
        self._turns: deque[Waiting] = deque()

    def add(self, files: Inventory) -> None:
        """Serve this session too."""
        with self._lock:
            waiting = self._sessions[files] = Waiting(files)
            self._turns.append(waiting)

    def remove(self, files: Inventory) -> None:
        """Stop serving this session, and drop its waiting files."""
        with self._lock:
            if waiting := self._sessions.pop(files, None):
                self._turns.remove(waiting)
                files.drop([*waiting.new, *waiting.again])
            self._room.notify_all()

    def full(self, files: Inventory, *, again: bool) -> bool:
        """Tell whether there is no room for one more file of this session."""
        with self._lock:
            return self._full(files, again=again)

    def _full(self, files: Inventory, *, again: bool) -> bool:
        waiting = self._sessions.get(files)
        return waiting is None or len(waiting.queue(again=again)) >= files.limit

    def offer(self, files: Inventory, path: str, found: Fingerprint) -> bool:
        """Queue a file that is ready. False when there is no room for it, or the session has ended."""
        again = files.failure(path) is not None
        with self._lock:
            if self._full(files, again=again):
                return files.knows(path)
            if item := files.admit(path, found):
                self._sessions[files].queue(again=again).append(item)
                self._wanted.notify()
        return True

    def wait_for_room(self, files: Inventory, timeout: float) -> None:
        """Wait until a quarter of the queue of new files is free, or the session ends; at most `timeout` seconds."""
        with self._lock:
            self._room.wait_for(lambda: files not in self._sessions or self._sessions[files].roomy(), timeout)

    def take(self, reachable: threading.Event = OPEN) -> Item:
        """Wait for a file and take it; sessions in turn. None is taken while the store cannot be reached."""
        while True:
            reachable.wait()
            with self._lock:
                while reachable.is_set():
                    if item := self._next():
                        return item
                    self._wanted.wait()

    def another(self, reachable: threading.Event = OPEN) -> Item | None:
        """Take a file if one waits and the store can be reached."""
        with self._lock:
            return self._next() if reachable.is_set() else None

    def _next(self) -> Item | None:
        for _ in range(len(self._turns)):
            waiting = self._turns[0]
            self._turns.rotate(-1)
            if item := waiting.take():
                if waiting.roomy():  # a needless wake-up costs two context switches
                    self._room.notify_all()
                item.files.begin(item)
                return item
        return None

    def waits(self, files: Inventory) -> bool:
        """Tell whether a file of this session waits here."""
        with self._lock:
            waiting = self._sessions.get(files)
            return waiting is not None and bool(waiting.new or waiting.again)

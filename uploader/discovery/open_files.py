"""Files that an event called finished and that somebody had open none the less: when to look at them again.

The kernel's NFS server is one such somebody: it keeps what a client wrote open for a while, and closes it some
milliseconds after a lease was asked for, without an event.
"""

MOST = 1000  # files, about 300 bytes each; any further one is left to a scan


class OpenFiles:
    """Folders and names with the time to look, in monotonic seconds. Not thread-safe."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, str], float] = {}

    def add(self, folder: str, name: str, due: float) -> bool:
        """Remember a file, or when it is due now; False when there is no room."""
        if len(self._due) >= MOST and (folder, name) not in self._due:
            return False
        self._due[folder, name] = due
        return True

    def next(self) -> float:
        """Return when the first one is due, infinity when there is none."""
        return min(self._due.values(), default=float("inf"))

    def take(self, now: float) -> list[tuple[str, str]]:
        """Forget and return those that are due."""
        due = [file for file, at in self._due.items() if at <= now]
        for file in due:
            del self._due[file]
        return due

"""When claims of a session were last given back, whoever did it.

A link and an unlink move a file's ctime as a producer's rename does. Only the process that made them knows whose they
were, so it says so on the share first; a sign that is not later than the mark is nobody's.
"""

import os
from contextlib import suppress

from uploader.share.mount import OWN, Share

# Opened, because NFS asks the server on open and not on stat; neither a link nor a pipe is followed.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Mark:
    """An empty file whose mtime says until when signs do not count. Every method may raise OSError."""

    def __init__(self, share: Share, session: str) -> None:
        self._share = share
        self._path = f"{share.root}/{OWN}/given-back/{session}"

    def set(self) -> None:
        """Let no sign count for as long as a call on the share can take. Another process's mark is not shortened."""
        until = self._share.server_time() + int(self._share.timeout * 1e9)
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        try:
            self._extend(until)
        except PermissionError:  # another user's, as whom the pods ran before: only the owner sets such a time
            self.remove()
            self._extend(until)

    def _extend(self, until: int) -> None:
        fd = os.open(self._path, _WRITE, 0o666)
        try:
            if os.fstat(fd).st_mtime_ns < until:
                os.utime(fd, ns=(until, until))
        finally:
            os.close(fd)

    def until(self) -> int:
        """Return the server's time in ns up to which a sign may be ours, 0 when no claim was given back."""
        try:
            fd = os.open(self._path, _READ)
        except FileNotFoundError:
            return 0
        try:
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Remove it with the session's record."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)

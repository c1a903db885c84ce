"""When claims of a session were last given back, whoever did it.

A link and an unlink move a file's ctime as a producer's rename does. Only the process that made them knows whose they
were, so it says so on the share first; a sign that is not later than the mark is nobody's.
"""

import os
from contextlib import suppress

from uploader.errors import NotEligible
from uploader.share.fingerprint import look, odd
from uploader.share.mount import OWN, Share

# Anything else under the mark's name cannot be one: then no sign counts at all, and every file has to settle.
FOR_EVER = 2**63 - 1  # ns
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
        except OSError:
            if not self._odd():
                raise

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
            return look(None, self._path).mtime_ns  # opened, because NFS asks the server on open and not on stat
        except FileNotFoundError:
            return 0
        except NotEligible:
            self._odd()
            return FOR_EVER

    def _odd(self) -> bool:
        """Tell whether something else than a file has the mark's name, and log it once."""
        if reason := odd(None, self._path):
            self._share.report(self._path, reason)
        return bool(reason)

    def remove(self) -> None:
        """Remove it with the session's record."""
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(self._path)

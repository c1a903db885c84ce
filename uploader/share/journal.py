"""Journals: files to which lines are only ever added, one for each process and session.

Two processes never write to one journal, because over NFS an append may land on another's. So a torn line, which a
crash or a full share leaves, is the last of its journal: the next line begins another journal.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from uploader.errors import NotEligible
from uploader.share import fingerprint
from uploader.share.mount import OWN, Share

GONE = ".gone-"
MAX_LINE = 64 * 1024  # bytes; a longer line is not ours
NAME = re.compile(r"\d{1,10}-[0-9a-f]{16}\.jsonl", re.ASCII)
_WRITE = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line, and where the next one begins."""

    journal: str
    end: int
    text: bytes

    @property
    def place(self) -> tuple[str, int]:
        """What names it: nothing is ever written over."""
        return self.journal, self.end


class Journals:
    """The journals of one session, of all shards. Every method may raise OSError. Not thread-safe."""

    def __init__(self, share: Share, session: str, ordinal: int) -> None:
        self._parent = f"{share.root}/{OWN}/receipts"
        self._folder = f"{self._parent}/{session}"
        self._ordinal = ordinal
        self._own: str | None = None  # this process's journal, once it has one

    def append(self, lines: bytes) -> None:
        """Add whole lines; they are on the share's disk on return. After an error some of them may be there."""
        try:
            fd = self._opened()
            try:
                _write(fd, lines)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            self._own = None  # what it ends with is not known: nothing is ever added to a torn line
            raise

    def _opened(self) -> int:
        if self._own:
            with suppress(FileNotFoundError):  # another process has ended the session
                return os.open(f"{self._folder}/{self._own}", _WRITE)
        os.makedirs(self._folder, exist_ok=True)
        self._own = f"{self._ordinal}-{secrets.token_hex(8)}.jsonl"
        fd = os.open(f"{self._folder}/{self._own}", _WRITE | os.O_CREAT | os.O_EXCL, 0o666)
        for folder in self._folder, self._parent, os.path.dirname(self._parent):
            _sync(folder)
        return fd

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each journal by its name; regular files only."""
        try:
            with os.scandir(self._folder) as entries:
                found = [entry for entry in entries if NAME.fullmatch(entry.name)]
                looks = {entry.name: entry.stat(follow_symlinks=False) for entry in found}
        except FileNotFoundError:
            return {}
        return {name: look.st_size for name, look in sorted(looks.items()) if stat.S_ISREG(look.st_mode)}

    def lines(self, sizes: Mapping[str, int], after: tuple[str, int] = ("", 0)) -> Iterator[Line]:
        """Yield the whole lines of these journals up to these sizes, one at a time, from a place on."""
        for name, size in sizes.items():
            if name >= after[0]:
                yield from self._of(name, size, after[1] if name == after[0] else 0)

    def _of(self, name: str, size: int, begin: int) -> Iterator[Line]:
        try:
            fd, _ = fingerprint.read(None, f"{self._folder}/{name}")
        except NotEligible as error:  # somebody has put something else there
            raise OSError(errno.EINVAL, str(error), name) from None
        with os.fdopen(fd, "rb") as file:
            end = file.seek(begin)
            while end < size and (text := file.readline(MAX_LINE)):
                end += len(text)
                if text.endswith(b"\n"):  # any other is torn, or not ours
                    yield Line(name, end, text)

    def remove(self, sizes: Mapping[str, int]) -> bool:
        """Remove the journals if they are still what these sizes say; False, and nothing is removed, when not."""
        if self.sizes() != sizes:
            return False
        self._own = None
        with suppress(FileNotFoundError):
            os.rename(self._folder, f"{self._parent}/{GONE}{secrets.token_hex(8)}")  # all of them at once
            _sync(self._parent)
            self._clear()
        return True

    def _clear(self) -> None:
        """Delete what was removed, also by a process that was killed then."""
        for folder in os.listdir(self._parent):
            if folder.startswith(GONE):
                at = f"{self._parent}/{folder}"
                with suppress(OSError):  # another process does the same
                    for name in os.listdir(at):
                        os.unlink(f"{at}/{name}")
                    os.rmdir(at)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync(folder: str) -> None:
    fd = os.open(folder, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Session records on the share: `.nfs-watch/sessions/<session>.json`, created by link, changed by rename.

A record appears whole or not at all, and of two shards that create the same record exactly one succeeds: link() fails
when the name exists, on NFS too. rename() could not promise that (RENAME_NOREPLACE is EINVAL there).
"""

import errno
import itertools
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uploader.errors import ShareLost
from uploader.session import InvalidRecord, Session
from uploader.share import entry
from uploader.share.listings import TICK, times
from uploader.telemetry import names

log = logging.getLogger(__name__)
SUFFIX = ".json"
ASIDE = ".unreadable"
READ_AGAIN = 300.0  # seconds until the records are read although their folder is the same: one may be edited in place
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Listed:
    """The records by session; `unreadable`: sessions whose record is there but cannot be read now, and why."""

    sessions: dict[str, Session]
    unreadable: dict[str, OSError]


class Records:
    """The records of all shards. Every method may raise OSError."""

    def __init__(self, folder: Path, ordinal: int) -> None:
        """Remove the half-written records of a crashed process of this ordinal. `folder` has to exist.

        If that process still lives (I9), its write fails: names are random, so that no other file has its file's name.
        """
        self.folder = folder
        self._ordinal = ordinal
        self._reported: frozenset[str] = frozenset()
        self._stamp: tuple[int, ...] = ()  # of the folder, as it was last seen
        self._since = 0.0  # when that stamp was first seen, monotonic seconds
        self._last: Listed | None = None  # what may be returned again while the stamp is the same
        self._until = 0.0  # how long that may be, monotonic seconds
        entry.clear(str(folder), ordinal)

    def create(self, session: Session) -> bool:
        """Write a new record; False when the session has one already. The record is on disk on return."""
        return entry.created(str(self._path(session.name)), session.to_json(), self._ordinal)

    def replace(self, session: Session) -> None:
        """Replace a record. The new record is on disk on return."""
        temporary = self._written(session)
        try:
            os.rename(temporary, self._path(session.name))
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._sync()

    def remove(self, name: str) -> None:
        """Remove a record."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(name))
        self._sync()

    def get(self, name: str) -> Session | None:
        """Return a record, None when there is no valid one. Changes nothing on the share."""
        try:
            return self._valid(name)
        except InvalidRecord:
            return None

    def mended(self, name: str) -> Session | None:
        """Return a record as `get` does; an invalid one is logged and put aside, so that its name can be used again."""
        try:
            return self._valid(name)
        except InvalidRecord as error:
            self._put_aside(name, str(error))
            return None

    def _valid(self, name: str) -> Session | None:
        """Return a record, None when there is none. Raises InvalidRecord; OSError when it cannot be read at all."""
        try:
            data = entry.read(str(self._path(name)))
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise InvalidRecord(str(error.strerror)) from error
            raise OSError(error.errno, f"the record of {name}: {error.strerror}") from error
        return None if data is None else Session.from_json(data, name)

    def all(self) -> Listed:
        """Return every record; called by one thread. A record that cannot be read stops no other (I7).

        The records are read only when their folder's times have moved, and every READ_AGAIN seconds. Raises ShareLost
        when the folder is gone: it was there at the start, so this is another share (I6).
        """
        try:
            stamp = self._look()
            now = time.monotonic()
            if stamp != self._stamp:
                self._stamp, self._since, self._last = stamp, now, None
            if self._last and now < self._until:
                return self._last
            listed = self._read()
        except FileNotFoundError:
            raise ShareLost(f"the folder of the session records, {self.folder}, is gone from the share") from None
        # Within one tick of the server's clock a second change leaves the same times.
        if now - self._since >= TICK and not listed.unreadable:
            self._last, self._until = listed, now + READ_AGAIN
        return listed

    def _look(self) -> tuple[int, ...]:
        """Return what changes with each record that is made, replaced or removed. NFS asks the server on open."""
        fd = os.open(self.folder, _FOLDER)
        try:
            return times(fd)
        finally:
            os.close(fd)

    def _read(self) -> Listed:
        sessions: dict[str, Session] = {}
        unreadable: dict[str, OSError] = {}
        for name in [name.removesuffix(SUFFIX) for name in os.listdir(self.folder) if name.endswith(SUFFIX)]:
            try:
                if record := self.mended(name):
                    sessions[name] = record
            except OSError as error:
                unreadable[name] = error
        self._report(unreadable)
        return Listed(sessions, unreadable)

    def _report(self, unreadable: dict[str, OSError]) -> None:
        """Log each unreadable record once, until that record can be read again."""
        for name in unreadable.keys() - self._reported:
            log.error(names.RECORD_UNREADABLE, extra={"session": name, "error": unreadable[name].strerror})
        self._reported = frozenset(unreadable)

    def _path(self, name: str) -> Path:
        return self.folder / (name + SUFFIX)

    def _written(self, session: Session) -> str:
        return entry.written(str(self.folder), self._ordinal, session.to_json())

    def _put_aside(self, name: str, reason: str) -> None:
        if name + SUFFIX not in os.listdir(self.folder):
            return  # the share took another session's name for this one: that record is valid under its own
        for number in itertools.count():
            aside = self.folder / f"{name}{SUFFIX}{ASIDE}{number or ''}"
            if aside.exists():
                continue
            with suppress(FileNotFoundError):  # another shard was quicker
                os.rename(self._path(name), aside)
                log.error(names.RECORD_UNREADABLE, extra={"session": name, "error": reason, "kept_as": aside.name})
            return

    def _sync(self) -> None:
        entry.sync(str(self.folder))

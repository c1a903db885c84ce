"""Results of sessions that ended, on the share: `.nfs-watch/ended/<session>.json`, kept for a while."""

import logging
import os
import secrets
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from uploader.errors import BadRequest
from uploader.session import NAME
from uploader.share import entry
from uploader.share.mount import OWN, Share
from uploader.telemetry import names
from uploader.web.openapi.results import Result

log = logging.getLogger(__name__)
SUFFIX = ".json"
LARGEST = 8 * 1024 * 1024  # bytes: 1,000 paths of 4,096 characters each, written as escapes where they have to be
_RESULT = TypeAdapter(Result)


class Place(NamedTuple):
    """Where a result stands among the others: newest last."""

    mtime_ns: int
    session: str

    def text(self) -> str:
        """Return it as a cursor."""
        return urlsafe_b64encode(f"{self.mtime_ns} {self.session}".encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "Place":
        """Read a cursor. Raises BadRequest."""
        try:
            mtime_ns, session = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(" ")
            return cls(int(mtime_ns), session)
        except ValueError as error:
            raise BadRequest("after: it is not `next` of such a page") from error


@dataclass(frozen=True)
class Page:
    """Some results, newest first; `next`: the last one's place when there are more."""

    results: list[Result]
    next: Place | None


class Results:
    """The results of all shards. Every method may raise OSError; a file that is no result counts as none."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._folder = f"{share.root}/{OWN}/ended"

    def write(self, result: Result) -> None:
        """Write a session's result in place of an earlier one; it is on disk on return."""
        os.makedirs(self._folder, exist_ok=True)
        temporary = f"{self._folder}/.tmp-{secrets.token_hex(8)}"
        try:
            with open(temporary, "xb") as file:
                file.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._path(result.session))
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def get(self, session: str) -> Result | None:
        """Return a session's result, None when it is not known."""
        try:
            data = entry.read(self._path(session), LARGEST)
            result = _RESULT.validate_json(data) if data else None
        except OSError as error:
            if error.errno not in entry.UNFIT:
                raise
            return None
        except ValidationError:
            return None
        return result if result and result.session == session else None

    def page(self, limit: int, after: Place | None) -> Page:
        """Return at most `limit` results, newest first; those before a place."""
        places = sorted((place for place in self._places() if after is None or place < after), reverse=True)
        found: list[Result] = []
        for index, place in enumerate(places):
            if result := self._listable(place.session):
                found.append(result)
            if len(found) == limit:
                return Page(found, place if index + 1 < len(places) else None)
        return Page(found, None)

    def _listable(self, session: str) -> Result | None:
        """Return a result as `get` does; one that cannot be read hides no other, and is logged once."""
        try:
            return self.get(session)
        except OSError as error:
            self._pass_over(error, session + SUFFIX)
            return None

    def _pass_over(self, error: OSError, name: str) -> None:
        """Log once that a file cannot be used. Raises ShareLost when it is the share that fails."""
        self._share.judge(error)
        self._share.report(f"{self._folder}/{name}", error.strerror or str(error))

    def remove_old(self, retention: float) -> None:
        """Remove the results, and halves of results, that were written more than `retention` seconds ago."""
        oldest = self._share.server_time() - int(retention * 1e9)
        for mtime_ns, name in self._listed():
            if mtime_ns < oldest:
                try:
                    os.unlink(f"{self._folder}/{name}")
                except FileNotFoundError:
                    pass
                except OSError as error:
                    self._pass_over(error, name)
                    continue
                if name.endswith(SUFFIX):
                    log.info(names.RESULT_REMOVED, extra={"session": name.removesuffix(SUFFIX)})

    def _places(self) -> list[Place]:
        return [
            Place(mtime_ns, name.removesuffix(SUFFIX))
            for mtime_ns, name in self._listed()
            if name.endswith(SUFFIX) and NAME.fullmatch(name.removesuffix(SUFFIX))
        ]

    def _listed(self) -> list[tuple[int, str]]:
        found = []
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for one in entries:
                try:
                    look = one.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._pass_over(error, one.name)
                    continue
                if stat.S_ISREG(look.st_mode):
                    found.append((look.st_mtime_ns, one.name))
        return found

    def _path(self, session: str) -> str:
        return f"{self._folder}/{session}{SUFFIX}"

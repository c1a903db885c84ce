"""A session as its record on the share describes it: name, state, owner, extensions."""

import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson
import ulid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
NAME_RULE = "1 to 128 of A-Z a-z 0-9 . _ -, first a letter or digit, without '..', not ending in a dot"
EXTENSION = re.compile(r"\.[^/\x00-\x1f\x7f]{1,63}")
EXTENSION_RULE = "a dot and 1 to 63 characters, such as .bin or .tar.gz"
MAX_ORDINAL = 2**31 - 1  # Kubernetes' spec.replicas is an int32


class State(StrEnum):
    """active: takes new files. draining: finishes the files that are there. stopped: its folder is still swept."""

    ACTIVE = "active"
    DRAINING = "draining"
    STOPPED = "stopped"


class InvalidRecord(ValueError):
    """A record that is no valid session; the text says why."""


@dataclass(frozen=True)
class Session:
    """One session. `extensions` None: those of the settings apply. `started_at` is RFC 3339 in UTC.

    `drained`: the session stopped after every file that was there was finished.
    """

    name: str
    state: State
    owner: int
    started_at: str
    extensions: tuple[str, ...] | None = None
    drained: bool = False

    def to_json(self) -> bytes:
        """Return the record's bytes."""
        fields = asdict(self)
        return orjson.dumps({"session": fields.pop("name"), **fields}, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "Session":
        """Read a record's bytes. Raises InvalidRecord, saying why."""
        try:
            fields: dict[str, Any] = orjson.loads(data)
            extensions = fields.get("extensions")
            session = cls(
                name=check_name(fields["session"]),
                state=State(fields["state"]),
                owner=int(fields["owner"]),
                started_at=str(fields["started_at"]),
                extensions=None if extensions is None else check_extensions(extensions),
                drained=fields.get("drained") is True,
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InvalidRecord(reason) from error
        if session.name != name or not 0 <= session.owner <= MAX_ORDINAL:
            raise InvalidRecord(f"the record is of session {session.name!r} with owner {session.owner}")
        return session


def check_name(name: str) -> str:
    """Return the name. Raises ValueError with the rule: it becomes a folder and a part of every blob's name."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise ValueError(f"a session's name is {NAME_RULE}")
    return name


def check_extensions(extensions: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return them in lower case. Raises ValueError with the rule."""
    for extension in extensions:
        if not isinstance(extension, str) or not EXTENSION.fullmatch(extension):
            raise ValueError(f"extension {extension!r}: it has to be {EXTENSION_RULE}")
    return tuple(dict.fromkeys(extension.lower() for extension in extensions))


def new_name() -> str:
    """Return a name that sorts by the time it was made (answer A3: a ULID)."""
    return f"00-session-{ulid.new()}"


def now() -> str:
    """Return the time as records and answers write it: RFC 3339, UTC, milliseconds."""
    return at(time.time())


def at(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as records and answers write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

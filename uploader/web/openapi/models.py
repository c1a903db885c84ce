"""The models of requests and answers, from which the contract's schemas are made.

The parts of a session's status are plain dataclasses: an answer holds many of them, and orjson writes them as fast as
dicts; a pydantic model takes 5 times as long to build.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from uploader.naming import check_sendable
from uploader.session import EXTENSION_RULE, NAME_RULE, check_extensions, check_name
from uploader.web.openapi.results import Count, FileState, Result, Size, Time

MAX_EXTENSIONS = 64
# The rule of session.NAME in words that need no look-around: a dot is always followed by something else.
NAME_PATTERN = r"^[A-Za-z0-9](\.?[A-Za-z0-9_-])*$"
EXTENSION_PATTERN = r"^\.[^/\u0000-\u001f\u007f]{1,63}$"

Name = Annotated[
    str,
    AfterValidator(check_name),
    Field(description=NAME_RULE, json_schema_extra={"pattern": NAME_PATTERN, "minLength": 1, "maxLength": 128}),
]
Extensions = Annotated[
    list[Annotated[str, Field(json_schema_extra={"pattern": EXTENSION_PATTERN})]],
    Field(max_length=MAX_EXTENSIONS, description=EXTENSION_RULE),  # before equal ones become one
    AfterValidator(lambda value: list(check_sendable(check_extensions(value)))),
]


Absent = SkipJsonSchema[None]  # a member of an answer that is left out, and never null


def encoded(content: object) -> bytes:
    """Return an answer as JSON; a model's fields that were not set are left out."""
    return orjson.dumps(content, default=_members)


def _members(model: object) -> dict[str, Any]:
    if not isinstance(model, BaseModel):
        raise TypeError(type(model).__name__)
    given = model.model_fields_set
    return {name: value for name, value in model.__dict__.items() if name in given}


class Body(BaseModel):
    """The fields that a request may have; any other field is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StartRequest(Body):
    """Body of POST /v1/watch/start."""

    session: Name | None = Field(default=None, description=f"{NAME_RULE}; without one: 00-session-<ULID>")
    extensions: Extensions | None = Field(
        default=None, description=f"each {EXTENSION_RULE}; without them: those of the service's settings"
    )
    shard: int | None = Field(default=None, ge=0, description="ordinal of the shard that is to run the session")


class StopRequest(Body):
    """Body of POST /v1/watch/stop."""

    session: Name
    drain: bool = Field(
        default=True, description="false: end at once, and leave the rest; without it files that are there are finished"
    )


class Query(BaseModel):
    """The parameters that a GET may have; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StatusQuery(Query):
    """Parameters of GET /v1/watch/status."""

    session: Name | None = None
    wait: int = Field(default=0, ge=0, le=60)


class EventsQuery(Query):
    """Parameters of GET /v1/watch/events."""

    changes: bool = False


class PageQuery(Query):
    """Parameters of a call that answers in pages."""

    # A path of 4,096 bytes, PATH_MAX, as hexadecimal digits and then in base 64.
    after: str | None = Field(default=None, max_length=16384, pattern="^[A-Za-z0-9_-]*$")
    limit: int = Field(default=100, ge=1, le=1000)


class FilesQuery(PageQuery):
    """Parameters of GET /v1/watch/files."""

    session: Name
    state: FileState | None = None
    path: str | None = Field(default=None, min_length=1, max_length=4096)


class RetryRequest(Body):
    """Body of POST /v1/watch/retry."""

    session: Name
    path: str | None = Field(
        default=None, min_length=1, max_length=4096, description="only this file; without it every one that failed"
    )


class SessionState(StrEnum):
    """active, draining; stopped: its files are still deleted; ended: nothing more will happen."""

    ACTIVE = "active"
    DRAINING = "draining"
    STOPPED = "stopped"
    ENDED = "ended"


class Started(BaseModel):
    """The session runs; its record is on disk and survives any crash."""

    session: str
    state: SessionState
    shard: int = Field(description="ordinal of the shard that runs it")
    folder: str = Field(description="below the share's root; move finished files into it")
    started_at: Time


class Ended(BaseModel):
    """The session's state after a stop."""

    session: str
    state: SessionState
    shard: int


class Retried(BaseModel):
    """The failed files are due now; what becomes of them is told by status and files."""

    session: str
    shard: int
    files: int = Field(ge=0, description="number of files that are due now")


@dataclass
class Files:
    """Numbers of files, by their state."""

    waiting: Count
    uploading: Count
    completed: Count
    failed: Annotated[int, Field(ge=0, description="tried again for ever, or not proven to be in the store and kept")]
    replaced: Annotated[int, Field(ge=0, description="of those completed: other content was under the blob's name")]


@dataclass
class Bytes:
    """Bytes of file content."""

    uploaded: Count
    total: Count


@dataclass
class Current:
    """A file in flight, one that failed and waits for its next attempt, or one that waits for its writer."""

    path: Annotated[str, Field(description="relative to the session's folder")]
    size: Size
    uploaded: Size
    attempts: Count
    error: Annotated[str | None, Field(description="why the last attempt failed, or what the file waits for")] = None
    state: FileState = FileState.UPLOADING
    next_try: Annotated[Time | None, Field(description="of one that failed; null: there is none")] = None


@dataclass
class LastError:
    """An error that has not passed."""

    path: Annotated[str | None, Field(description="relative to the session's folder; null: of the whole session")]
    at: Time
    error: str


@dataclass
class SessionStatus:
    """One session. Its counts are those of the whole session, whatever restarted in between."""

    session: str
    state: SessionState
    shard: int
    started_at: Time
    files: Files
    bytes: Bytes
    rate_bytes_per_s: Annotated[float, Field(ge=0)]
    eta_s: Annotated[float | None, Field(description="seconds left; null when they cannot be estimated")]
    current: list[Current]
    last_error: LastError | None
    result: Annotated[Result | None, Field(description="of a session that has ended")] = None
    as_of: Annotated[Time | None, Field(description="its shard is away: this was known then")] = None
    extensions: Annotated[list[str] | None, Field(description="null: those of the service's settings")] = None


class Store(BaseModel):
    """Where the files of a share go: `<endpoint>/<container>/<prefix><session>/<path>`."""

    endpoint: str
    container: str
    prefix: str


@dataclass(slots=True)
class Unreadable:
    """A session that a shard cannot take up, and why."""

    session: str
    error: str


class ShardStatus(BaseModel):
    """One shard, as seen by the program that answers."""

    shard: int
    reachable: bool
    sessions: list[str]
    error: str | Absent = Field(default=None, description="why the shard is not reachable")
    since: Time | Absent = Field(default=None, description="since when it has not been reachable")
    waits_for: str | Absent = Field(default=None, description="why the shard sends nothing now: the store is away")
    unreadable: list[Unreadable] | Absent = Field(
        default=None, description="sessions whose record or receipts it cannot read, tried again each time"
    )
    store: Store | Absent = Field(default=None, description="where its files go")
    version: str | Absent = Field(default=None, description="of the program")
    room: Count | Absent = Field(default=None, description="sessions that may still be started on it")


class Status(BaseModel):
    """Sessions and shards."""

    sessions: list[SessionStatus]
    shards: list[ShardStatus]
    error: str | Absent = Field(default=None, description="events only: why no shard can be asked")


class SessionRates(BaseModel):
    """The rates of one session."""

    session: str
    shard: int
    rates: list[int] = Field(description="bytes per second, oldest first; 0 where its shard was away")


class Rates(BaseModel):
    """The last 15 minutes, as the router saw them."""

    step_s: float = Field(description="seconds from one rate to the next")
    age_s: float = Field(description="seconds since the last rate")
    sessions: list[SessionRates]


class Code(StrEnum):
    """What an error is, for programs to decide by. Later versions may have more: those go by their status."""

    BAD_REQUEST = "bad-request"
    FOREIGN = "foreign"
    NOT_FOUND = "not-found"
    UNKNOWN_SESSION = "unknown-session"
    UNKNOWN_FILE = "unknown-file"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    ALREADY_ACTIVE = "already-active"
    SHARD_FULL = "shard-full"
    NOT_RUNNING = "not-running"
    TOO_LARGE = "too-large"
    NOT_OWNER = "not-owner"
    INTERNAL_ERROR = "internal-error"
    BAD_SHARD = "bad-shard"
    NOT_READY = "not-ready"
    TOO_MANY_CLIENTS = "too-many-clients"


class Problem(BaseModel):
    """An error (RFC 9457)."""

    title: str
    status: int
    code: Code
    detail: str = Field(description="a sentence for people to read")
    shard: int | Absent = Field(
        default=None,
        description="the shard that owns the session (already-active, not-owner), or is at fault (bad-shard)",
    )
    sessions: list[str] | Absent = Field(default=None, description="shard-full: the sessions that run")

"""What the programs answer, as models: the contract's schemas, and what tests check real answers against."""

from pydantic import BaseModel, Field

from uploader.session import State


class Started(BaseModel):
    """The session runs; its record is on disk and survives any crash."""

    session: str
    state: State
    shard: int = Field(description="ordinal of the shard that runs it")
    folder: str = Field(description="below the share's root; move finished files into it")
    started_at: str = Field(description="RFC 3339, UTC", json_schema_extra={"format": "date-time"})


class Ended(BaseModel):
    """How far the stop has come."""

    session: str
    state: State
    shard: int


class Files(BaseModel):
    """Files by what becomes of them."""

    waiting: int = Field(ge=0)
    uploading: int = Field(ge=0)
    completed: int = Field(ge=0)
    failed: int = Field(ge=0, description="failed at least once; each is tried again for ever")


class Bytes(BaseModel):
    """Bytes of file content."""

    uploaded: int = Field(ge=0)
    total: int = Field(ge=0)


class Current(BaseModel):
    """A file in flight, or one that failed and waits for its next attempt."""

    path: str = Field(description="below the session's folder")
    size: int = Field(ge=0, description="bytes")
    uploaded: int = Field(ge=0, description="bytes")
    attempts: int = Field(ge=0)
    error: str | None = Field(default=None, description="why the last attempt failed")


class SessionStatus(BaseModel):
    """One session."""

    session: str
    state: State
    shard: int
    started_at: str = Field(description="RFC 3339, UTC", json_schema_extra={"format": "date-time"})
    files: Files
    bytes: Bytes
    rate_bytes_per_s: float = Field(ge=0)
    eta_s: float | None = Field(description="seconds; null when it cannot be told")
    current: list[Current]
    last_error: str | None


class ShardStatus(BaseModel):
    """One shard, as seen by who answers."""

    shard: int
    reachable: bool
    sessions: list[str]
    error: str | None = Field(default=None, description="why it is not reachable")


class Status(BaseModel):
    """Sessions and shards."""

    sessions: list[SessionStatus]
    shards: list[ShardStatus]
    error: str | None = Field(default=None, description="events only: why no shard can be asked")


class Problem(BaseModel):
    """RFC 9457."""

    title: str
    status: int
    code: str = Field(description="what to decide by")
    detail: str = Field(description="a sentence to read")
    shard: int | None = Field(default=None, description="not-owner: who owns it")
    sessions: list[str] | None = Field(default=None, description="shard-full: what runs")

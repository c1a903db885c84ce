"""The models of what became of a session's files: receipts, pages of files, results of sessions that ended."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field

Time = Annotated[str, Field(description="RFC 3339, UTC", json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=0, description="bytes")]
RelativePath = Annotated[str, Field(description="relative to the session's folder")]
Cursor = Annotated[str | None, Field(description="`after` of the next page; null: this is the last one")]


class FileState(StrEnum):
    """waiting, uploading; failed: tried again for ever; kept: stays on the share; done: in the store, verified."""

    WAITING = "waiting"
    UPLOADING = "uploading"
    FAILED = "failed"
    KEPT = "kept"
    DONE = "done"


@dataclass
class Replaced:
    """Other content that was under the blob's name. What was not kept has no snapshot."""

    etag: Annotated[str, Field(description="of the blob that was replaced, without quotes")]
    snapshot: Annotated[str | None, Field(description="id of the snapshot that keeps it; null: it was not kept")]


@dataclass
class Receipt:
    """A line that was on the share's disk before the file was deleted. What is not known after a restart is null."""

    session: str
    path: RelativePath
    blob: str
    size: Size
    crc64: Annotated[str, Field(description="CRC-64/NVME: base64 of 8 bytes, little-endian, as x-ms-content-crc64")]
    md5: Annotated[str | None, Field(description="hexadecimal")]
    etag: str
    mtime: Time
    inode: int
    committed: Time
    shard: int
    attempts: int | None
    replaced: Replaced | None


@dataclass
class FileStatus:
    """What is known of one file."""

    path: RelativePath
    state: FileState
    size: Size = 0
    uploaded: Size = 0
    attempts: Count = 0
    reason: Annotated[str | None, Field(description="why it failed, is kept, or waits for more than time")] = None
    next_try: Time | None = None
    receipt: Annotated[Receipt | None, Field(description="of a file that is done and deleted from the share")] = None


class FilePage(BaseModel):
    """One page of a session's files."""

    session: str
    files: list[FileStatus]
    next: Cursor


@dataclass
class LeftBehind:
    """A file that lies on the share although its session has ended."""

    path: RelativePath
    reason: str


@dataclass
class ResultFiles:
    """Numbers of files. `failed`: those left behind after an attempt failed; `left_behind` counts them too."""

    sent: Count
    replaced: Annotated[int, Field(ge=0, description="of those sent: other content was under the blob's name")]
    failed: Annotated[int, Field(ge=0, description="of those left behind: the last attempt failed, as far as is known")]
    left_behind: Annotated[
        int, Field(ge=0, description="still on the share; `left_behind` names 1,000 of them at most")
    ]


@dataclass
class Result:
    """What became of a session that has ended. Only what has a receipt counts as sent."""

    session: str
    shard: int
    began: Time
    ended: Time
    drained: Annotated[bool, Field(description="false: it was stopped at once")]
    files: ResultFiles
    bytes: Annotated[int, Field(ge=0, description="of the files sent")]
    receipts: Annotated[str | None, Field(description="the blob with a receipt for each file sent; null: no file was")]
    left_behind: list[LeftBehind] = field(default_factory=list)
    extensions: Annotated[list[str] | None, Field(description="null: those of the service's settings")] = None


class ResultPage(BaseModel):
    """One page of the sessions that ended, newest first."""

    results: list[Result]
    next: Cursor

"""Everything that can go wrong, as one tree; what an error is decides what happens next.

UploaderError
├── Fatal                 the process ends with `exit_code`
│   ├── BadConfiguration  1: settings, credentials, container; a person has to act
│   └── ShareLost         75: only a fresh mount can help
├── FileError             this file waits and is tried again with backoff; the others go on
│   ├── NotEligible       cannot be sent as it is (a link, a bad name); a drain does not wait for it
│   ├── Unsettled         changed while it was read (I2); goes back and has to settle again
│   │   └── HeldOpen      somebody can still write to it; it waits until nobody can
│   ├── ShortRead         the file ended before its size (I3)
│   ├── InTheWay          another file stands where a rename would put this one (I4)
│   ├── Vanished          no longer there: the producer took it back
│   └── StoreError        the blob store did not take it
│       ├── StoreAway     time-out, 5xx, 429, reset connection: it may work the next time
│       ├── StoreRefused  any other answer; shown as it is
│       ├── LeftoverBlocks  uncommitted blocks with ids of another length (InvalidBlobOrBlock)
│       ├── ExpiredBlocks   blocks named in the commit are gone (InvalidBlockList)
│       ├── TooManyBlocks   100,000 uncommitted blocks (BlockCountExceedsLimit)
│       └── Overtaken       the blob is not what the write's condition says: someone else wrote it
├── Cancelled             the session ended while its file was under way
└── Refused               a request that is answered with an error; carries its HTTP status
    ├── BadRequest        400
    ├── TooLarge          413
    ├── AlreadyActive     409
    ├── ShardFull         409
    ├── NotOwner          421
    ├── UnknownSession    404
    ├── NotReady          503
    ├── BadShard          502: the router only
    └── Unexpected        500
"""

from collections.abc import Mapping
from typing import Any


class UploaderError(Exception):
    """The root of the tree."""


class Fatal(UploaderError):
    """The process ends with this exit code."""

    exit_code = 1


class BadConfiguration(Fatal):
    """A person has to act: wrong settings, refused credentials, no container. Kubernetes backs off."""


class ShareLost(Fatal):
    """The share is gone or is another one. 75 (sysexits.h: EX_TEMPFAIL) makes Kubernetes replace the pod."""

    exit_code = 75


class FileError(UploaderError):
    """One file cannot go on now."""


class NotEligible(FileError):
    """The file can never be sent as it is: not a regular file, or a name the store cannot hold."""


class Unsettled(FileError):
    """The file changed while it was read."""


class HeldOpen(Unsettled):
    """Somebody has the file open for writing, or mapped."""


class ShortRead(FileError):
    """The file ended before the size it had when it was opened."""


class InTheWay(FileError):
    """Something unproven stands under the name that this file needs."""


class Vanished(FileError):
    """The file is no longer there."""


class StoreError(FileError):
    """The blob store did not take the file."""


class StoreAway(StoreError):
    """The store did not answer, or asked for patience."""


class StoreRefused(StoreError):
    """The store said no."""


class LeftoverBlocks(StoreError):
    """The blob has blocks with ids of another length."""


class ExpiredBlocks(StoreError):
    """The commit named blocks that the store does not have."""


class TooManyBlocks(StoreError):
    """The blob has as many uncommitted blocks as it can hold."""


class Overtaken(StoreError):
    """The condition of a write did not hold; nothing was written."""


class Cancelled(UploaderError):
    """The session ended."""


class Refused(UploaderError):
    """A request that cannot be done; `extra` are further members of its problem document."""

    status = 400
    code = "bad-request"

    def __init__(self, detail: str, **extra: Any) -> None:  # noqa: ANN401 any JSON
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequest(Refused):
    """The request is not what the contract says."""


class TooLarge(Refused):
    """The body is larger than any request can be."""

    status = 413
    code = "too-large"


class AlreadyActive(Refused):
    """The session runs already, or drains."""

    status = 409
    code = "already-active"


class ShardFull(Refused):
    """As many sessions run here as may be started; `sessions` names them."""

    status = 409
    code = "shard-full"


class NotOwner(Refused):
    """Another shard owns the session; `shard` is its ordinal."""

    status = 421
    code = "not-owner"


class UnknownSession(Refused):
    """No record of this session."""

    status = 404
    code = "unknown-session"


class NotReady(Refused):
    """The share or the shard count cannot be asked now; try again."""

    status = 503
    code = "not-ready"


class BadShard(Refused):
    """A shard answered the router something that no shard says: a person has to look."""

    status = 502
    code = "bad-shard"


class Unexpected(Refused):
    """Any other exception while a request is answered."""

    status = 500
    code = "internal-error"


def sentence(error: Mapping[str, Any], name: str, missing: str = "is missing") -> str:
    """Return what pydantic found wrong with what is called `name`, or with all of it where there is no name."""
    if error["type"] == "missing":
        return f"{name} {missing}"
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {said}" if name else said

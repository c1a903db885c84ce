"""All errors of both programs, as one tree: an error's class decides what happens next.

UploaderError
├── Fatal                 the process ends with `exit_code`
│   ├── BadConfiguration  1: settings, credentials, container; a person has to act
│   └── ShareLost         75: only a fresh mount can help
├── FileError             this file is tried again with backoff; other files go on
│   ├── NotEligible       cannot be sent as it is (a link, a bad name); a drain does not wait for it
│   ├── Unsettled         changed while it was read (I2); goes back and has to settle again
│   │   └── HeldOpen      somebody can still write to it; it waits until nobody can
│   ├── LargeRead         has to be read, and others would wait for that: a thread of its own reads it
│   ├── ShortRead         the file ended before its size (I3)
│   ├── InTheWay          another file stands where a rename would put this one (I4)
│   ├── Conflict          other content is in the store under its name, and may not be replaced (I12)
│   ├── Vanished          no longer there: the producer or another shard took it
│   └── StoreError        the blob store did not take the file
│       ├── StoreAway     time-out, 5xx, 429, reset connection: the next try may succeed
│       ├── StoreRefused  any other answer; shown to the user
│       │   ├── NameRefused  about the file's name: not tried again, and a drain does not wait for it
│       │   └── ListRefused  the credentials may not list blobs, which no upload needs
│       ├── LeftoverBlocks  uncommitted blocks with ids of another length (InvalidBlobOrBlock)
│       ├── ExpiredBlocks   blocks named in the commit are gone (InvalidBlockList)
│       ├── TooManyBlocks   100,000 uncommitted blocks (BlockCountExceedsLimit)
│       └── Overtaken       the condition of a write does not hold: another writer wrote the blob
├── Cancelled             the session ended while its file was being uploaded
├── CommandEnds           the command nfs-watch says why in one line, and ends with `exit_code`
│   ├── Misused           2: a wrong argument, address or setting
│   ├── Unreachable       3: there was no usable answer
│   └── Declined          4: the service said no; carries its problem document
└── Refused               a request that is answered with an error; carries its HTTP status
    ├── BadRequest        400
    ├── Foreign           403
    ├── TooLarge          413
    ├── AlreadyActive     409
    ├── ShardFull         409
    ├── NotRunning        409
    ├── NotOwner          421
    ├── UnknownSession    404
    ├── UnknownFile       404
    ├── NotReady          503
    ├── TooManyClients    503
    ├── BadShard          502: only from the router
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
    """The share is gone or is another share. 75 (sysexits.h: EX_TEMPFAIL) makes Kubernetes replace the pod."""

    exit_code = 75


class FileError(UploaderError):
    """One file cannot be sent or deleted now."""


class NotEligible(FileError):
    """The file can never be sent as it is: not a regular file, or its name cannot be a blob's."""


class Unsettled(FileError):
    """The file changed while it was read."""


class HeldOpen(Unsettled):
    """Somebody has the file open for writing, or mapped."""


class LargeRead(FileError):
    """The file would have to be read, and is too large for a caller that others wait for."""


class ShortRead(FileError):
    """The file ended before the size it had when it was opened."""


class InTheWay(FileError):
    """Something unproven stands under the name that this file needs."""


class Conflict(FileError):
    """Other content is in the store under this file's name, and may not be replaced or cannot be kept."""


class Vanished(FileError):
    """The file is no longer there."""


class StoreError(FileError):
    """The blob store did not take the file."""


class StoreAway(StoreError):
    """The store did not answer, or asked to wait."""


class StoreRefused(StoreError):
    """The store refused the request. `status`: of its answer, 0 when there was none."""

    status = 0


class NameRefused(StoreRefused):
    """The store can have no blob of this name."""


class ListRefused(StoreRefused):
    """The credentials may not list the container's blobs."""


class LeftoverBlocks(StoreError):
    """The blob has blocks with ids of another length."""


class ExpiredBlocks(StoreError):
    """The commit named blocks that the store does not have."""


class TooManyBlocks(StoreError):
    """The blob has as many uncommitted blocks as a blob can have."""


class Overtaken(StoreError):
    """The condition of a write does not hold; nothing was written."""


class Cancelled(UploaderError):
    """The session ended while its file was being uploaded."""


class CommandEnds(UploaderError):
    """What the command cannot do, in one line. `code`: for programs to decide by."""

    exit_code = 1
    code = "left-behind"


class Misused(CommandEnds):
    """The command was given a wrong argument, or a variable of its environment is wrong."""

    exit_code = 2
    code = "usage"


class Unreachable(CommandEnds):
    """The service or the store did not give an answer that can be used."""

    exit_code = 3
    code = "not-reachable"


class Declined(CommandEnds):
    """The service's answer was no. `problem`: its document; `age`: seconds since the call was first sent, 0: just now.

    `date`: of the answer, by the service's clock, seconds since 1970; 0: not known.
    """

    exit_code = 4

    def __init__(self, problem: Mapping[str, Any], age: float = 0, date: float = 0) -> None:
        super().__init__(f"{problem.get('detail')} ({problem.get('code')})")
        self.code = str(problem.get("code"))
        self.problem = dict(problem)
        self.age = age
        self.date = date


class Refused(UploaderError):
    """A request that is answered with an error; `extra`: further members of its problem document."""

    status = 400
    code = "bad-request"

    def __init__(self, detail: str, **extra: Any) -> None:  # noqa: ANN401 any JSON
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class BadRequest(Refused):
    """The request does not follow the contract."""


class Foreign(Refused):
    """A web page of another site sent the request, or one under a name that is not this service's."""

    status = 403
    code = "foreign"


class TooLarge(Refused):
    """The body is larger than any valid request."""

    status = 413
    code = "too-large"


class AlreadyActive(Refused):
    """The session is active or draining already."""

    status = 409
    code = "already-active"


class ShardFull(Refused):
    """As many sessions run here as may be started; `sessions` names them."""

    status = 409
    code = "shard-full"


class NotRunning(Refused):
    """The session has stopped: none of its files is tried again."""

    status = 409
    code = "not-running"


class NotOwner(Refused):
    """Another shard owns the session; `shard` is its ordinal."""

    status = 421
    code = "not-owner"


class UnknownSession(Refused):
    """There is no record of this session."""

    status = 404
    code = "unknown-session"


class UnknownFile(Refused):
    """The session has no such file, and no receipt of one."""

    status = 404
    code = "unknown-file"


class NotReady(Refused):
    """The share, or the number of shards, cannot be read now: try again."""

    status = 503
    code = "not-ready"


class TooManyClients(Refused):
    """As many clients watch or wait as are served at once: try again."""

    status = 503
    code = "too-many-clients"


class BadShard(Refused):
    """A shard's answer to the router does not follow the contract: a person has to look."""

    status = 502
    code = "bad-shard"


class Unexpected(Refused):
    """Any other exception while a request is answered."""

    status = 500
    code = "internal-error"


def sentence(error: Mapping[str, Any], name: str, missing: str = "is missing") -> str:
    """Return one of pydantic's errors as a sentence about `name`, or about the whole input when `name` is empty."""
    if error["type"] == "missing":
        return f"{name} {missing}"
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {said}" if name else said

"""Where this share's files go: one share has one destination, whoever works on it.

Two installations with different stores on one share would divide each session between them, and each would hold the
other's `.completed` files for unproven.
"""

from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import orjson

from uploader.errors import BadConfiguration
from uploader.share import entry
from uploader.share.mount import OWN

NAME = f"{OWN}/destination.json"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Destination:
    """`endpoint`: of the account, without credentials; `prefix`: before each `<session>/<path>`."""

    endpoint: str
    container: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.container}/{self.prefix}"


def destination(url: str, container: str, prefix: str) -> Destination:
    """Return the destination of an account's URL; a user, a signature and the usual port are no part of it."""
    at = urlsplit(url)
    port = "" if at.port in {None, _PORTS.get(at.scheme)} else f":{at.port}"
    host = f"[{at.hostname}]" if at.hostname and ":" in at.hostname else at.hostname
    return Destination(f"{at.scheme}://{host}{port}{at.path.rstrip('/')}", container, prefix)


def settle(root: str, wanted: Destination, ordinal: int) -> None:
    """Make this the share's destination when it has none. Raises BadConfiguration when it has another; OSError."""
    path = f"{root}/{NAME}"
    there = _read(path)
    if there is None and entry.created(path, orjson.dumps(asdict(wanted)) + b"\n", ordinal):
        return
    there = there or _read(path)
    if there != wanted:
        raise BadConfiguration(
            f"the files of this share go to {there} (so says {path}), and the settings of this shard say {wanted}: "
            "a share has one destination. To move it on purpose stop all sessions, wait until they are swept, end all "
            "shards and remove that file: docs/operations.md, Another destination"
        )


def _read(path: str) -> Destination | None:
    """Return what the share says, None when it says nothing. Raises BadConfiguration, OSError."""
    try:
        data = entry.read(path)
        if data is None:
            return None
        fields = orjson.loads(data)
        return Destination(*(str(fields[name]) for name in ("endpoint", "container", "prefix")))
    except (ValueError, LookupError, TypeError) as error:
        raise BadConfiguration(_damaged(path, f"{type(error).__name__}: {error}")) from error
    except OSError as error:
        if error.errno not in entry.UNFIT:
            raise
        raise BadConfiguration(_damaged(path, error.strerror or "")) from error


def _damaged(path: str, why: str) -> str:
    return (
        f"{path} says where this share's files go, and cannot be read: {why}. Write it anew as "
        '{"endpoint": ..., "container": ..., "prefix": ...}: docs/operations.md, Another destination'
    )

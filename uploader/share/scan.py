"""The scan: every name below a session's folder, and its kind, which the name alone decides."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from uploader.share.paths import COMPLETED, PROCESSING, join, opened, split

TEMPORARY = (".tmp", ".part", ".partial", ".swp", ".crdownload", "~")
# learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
MAX_BLOB_NAME = 1024  # characters
MAX_NAME = 255  # bytes: NAME_MAX of Linux


_UNFIT = re.compile(
    r"(?P<utf8>[\ud800-\udfff])|(?P<control>[\x00-\x1f\x7f-\x9f\ufffe\uffff])|(?P<backslash>\\)|(?P<dot>\.(?=/|\Z))"
)
_REASONS = {
    "utf8": "its name is not UTF-8",
    "control": "its name holds a control character",
    "backslash": "its name holds a backslash, which the store takes for a slash",
    "dot": "a part of its path ends with a dot, which a blob's name must not",
}
DOUBLED = f"its name has {PROCESSING} or {COMPLETED} twice at its end, which this program never writes"


class Kind(Enum):
    """The kinds of names."""

    PLAIN = auto()
    PROCESSING = auto()
    COMPLETED = auto()
    ODD = auto()  # eligible by its name, but it cannot be sent; `reason` says why
    SHUT = auto()  # a folder that cannot be read now; `error` says why


@dataclass(frozen=True, slots=True)
class Found:
    """One name. `path`: of its plain name, below the session's folder; `folder`: a descriptor, open until the next."""

    kind: Kind
    path: str
    name: str
    folder: int
    reason: str = ""
    error: OSError | None = None


class Rule:
    """Which names are eligible (docs/design.md), and which of them the store can hold."""

    def __init__(self, extensions: tuple[str, ...], blob_prefix: str) -> None:
        """`extensions`: in lower case, () for every file. `blob_prefix` stands before the path in the blob's name."""
        self.extensions = extensions
        self.room = MAX_BLOB_NAME - len(blob_prefix)

    def eligible(self, name: str) -> bool:
        """Tell whether a file of this plain name is to be sent."""
        lower = name.lower()
        if name.startswith(".") or lower.endswith(TEMPORARY) or lower.endswith((PROCESSING, COMPLETED)):
            return False
        return not self.extensions or lower.endswith(self.extensions)

    def objection(self, path: str) -> str:
        """Return why no blob can have this name, "" when one can."""
        if bad := _UNFIT.search(path):
            return _REASONS[bad.lastgroup or ""]
        if len(path) > self.room:
            return f"its path has {len(path)} characters; the blob's name has room for {self.room}"
        if len(os.fsencode(split(path)[1])) > MAX_NAME - len(PROCESSING):
            return f"its name leaves no room for {PROCESSING}: a name has at most {MAX_NAME} bytes"
        return ""


def scan(top: int, rule: Rule, entered: Callable[[str, int], None] | None = None) -> Iterator[Found]:
    """Yield eligible files, claims, `.completed` files and unreadable folders below the folder `top`.

    `entered(path, fd)` is called before a folder is listed, so that a watch is there first. A folder that vanishes
    is passed over, a folder that fails does not hide the others (I7). Memory: one listing, and the names of the
    folders still to be listed. Raises OSError when `top` itself cannot be read.
    """
    folders = [""]
    while folders:
        path = folders.pop()
        try:
            with opened(top, path) as folder:
                if entered:
                    entered(path, folder)
                yield from _listing(folder, path, rule, folders)
        except OSError as error:
            if not path:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield Found(Kind.SHUT, path, path, top, error=error)


def _listing(folder: int, path: str, rule: Rule, folders: list[str]) -> Iterator[Found]:
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(listing) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(join(path, entry.name))
                elif found := _file(entry, folder, path, rule):
                    yield found
    finally:
        os.close(listing)


def _file(entry: "os.DirEntry[str]", folder: int, path: str, rule: Rule) -> Found | None:
    name, kind = entry.name, Kind.PLAIN
    if name.endswith(PROCESSING):
        name, kind = name.removesuffix(PROCESSING), Kind.PROCESSING
    elif name.endswith(COMPLETED):
        name, kind = name.removesuffix(COMPLETED), Kind.COMPLETED
    if kind is Kind.PLAIN and not rule.eligible(name):
        return None
    full = join(path, name)
    reason = rule.objection(full) if kind is not Kind.COMPLETED else ""
    if kind is not Kind.PLAIN and name.lower().endswith((PROCESSING, COMPLETED)):
        # We never write this name; without its last suffix it would look like another file's claim.
        return Found(Kind.ODD, join(path, entry.name), entry.name, folder, DOUBLED)
    if not entry.is_file(follow_symlinks=False):
        reason = "a symbolic link is not followed" if entry.is_symlink() else "not a regular file"
    if reason:
        return Found(Kind.ODD, full, entry.name, folder, reason)
    return Found(kind, full, entry.name, folder)

"""The scan: every name below a session's folder, and its kind, which the name alone decides."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from uploader.naming import COMPLETED, PROCESSING, RESERVED, TEMPORARY, objection
from uploader.share.listings import Listings
from uploader.share.paths import join, opened, split

MAX_NAME = 255  # bytes: NAME_MAX of Linux
DOUBLED = f"its name has {PROCESSING} or {COMPLETED} twice at its end, which this program never writes"
CASE = f"its name ends in {PROCESSING} or {COMPLETED} in other letters, which this program never writes: rename it"


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

    def __init__(self, extensions: tuple[str, ...], blob_prefix: str, temporary: tuple[str, ...] = ()) -> None:
        """`extensions`: in lower case, () for every file. `blob_prefix` stands before the path in the blob's name.

        `temporary`: a site's own suffixes of what is not finished, in lower case.
        """
        self.extensions = extensions
        self.blob_prefix = blob_prefix
        self._temporary = (*TEMPORARY, *temporary)

    def eligible(self, name: str) -> bool:
        """Tell whether a file of this plain name is to be sent."""
        lower = name.lower()
        if name.startswith(".") or self.unfinished(name) or lower.endswith(RESERVED):
            return False
        return not self.extensions or lower.endswith(self.extensions)

    def unfinished(self, name: str) -> bool:
        """Tell whether a file or folder of this name is left alone until it is renamed."""
        return name.lower().endswith(self._temporary)

    def objection(self, path: str) -> str:
        """Return why no blob can have this name, "" when one can."""
        if reason := objection(path, self.blob_prefix):
            return reason
        if len(os.fsencode(split(path)[1])) > MAX_NAME - len(PROCESSING):
            return f"its name leaves no room for {PROCESSING}: a name has at most {MAX_NAME} bytes"
        return ""


def scan(
    top: int,
    rule: Rule,
    entered: Callable[[str, int], None] | None = None,
    vanished: Callable[[str], None] | None = None,
    listings: Listings | None = None,
    *,
    everywhere: bool = False,
) -> Iterator[Found]:
    """Yield eligible files, claims, `.completed` files and unreadable folders below the folder `top`.

    Unfinished folders are passed over, unless `everywhere` is set; with `listings`, what they say still holds, too.
    `entered(path, fd)` is called before a folder is listed, so that a watch is there first. A folder that vanishes
    is passed over, and told to `vanished(path)`: it may lie elsewhere by now. A folder that fails does not hide the
    others (I7). Memory: one listing, and the names of the folders still to be listed.
    Raises OSError when `top` itself cannot be read.
    """
    folders = [""]
    while folders:
        path = folders.pop()
        try:
            with opened(top, path) as folder:
                if entered:
                    entered(path, folder)
                if listings and (below := listings.below(path, folder)) is not None:
                    folders += below
                    continue
                before, done = len(folders), True
                for found in _listing(folder, path, rule, folders, everywhere=everywhere):
                    done = done and found.kind is Kind.COMPLETED
                    yield found
                if listings:
                    listings.listed(path, folders[before:], done=done)
        except OSError as error:
            if not path:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield Found(Kind.SHUT, path, path, top, error=error)
            elif vanished:
                vanished(path)


def _listing(folder: int, path: str, rule: Rule, folders: list[str], *, everywhere: bool) -> Iterator[Found]:
    listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(listing) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if everywhere or not rule.unfinished(entry.name):
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
    if kind is Kind.PLAIN and name.lower().endswith(RESERVED):
        return Found(Kind.ODD, join(path, name), name, folder, CASE)
    if kind is Kind.PLAIN and not rule.eligible(name):
        return None
    full = join(path, name)
    reason = rule.objection(full) if kind is not Kind.COMPLETED else ""
    if kind is not Kind.PLAIN and name.lower().endswith(RESERVED):
        # We never write this name; without its last suffix it would look like another file's claim.
        return Found(Kind.ODD, join(path, entry.name), entry.name, folder, DOUBLED)
    if not entry.is_file(follow_symlinks=False):
        reason = "a symbolic link is not followed" if entry.is_symlink() else "not a regular file"
    if reason:
        return Found(Kind.ODD, full, entry.name, folder, reason)
    return Found(kind, full, entry.name, folder)

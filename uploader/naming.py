"""The one rule for names: what a blob's name may be, and which suffixes have a meaning.

It holds for the prefix, the session and the path alike, for together they are the blob's name.
"""

import re

# learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
MAX_CHARACTERS = 1024
MAX_PARTS = 254
PROCESSING = ".processing"
COMPLETED = ".completed"
RESERVED = (PROCESSING, COMPLETED)
TEMPORARY = (".tmp", ".part", ".partial", ".filepart", ".swp", ".crdownload", "~")
SUFFIX = re.compile(r"[^/\x00-\x1f\x7f]{1,64}")
SUFFIX_RULE = "1 to 64 characters, none of them a slash or a control character, such as .filling"

_UNFIT = re.compile(
    r"(?P<utf8>[\ud800-\udfff])|(?P<control>[\x00-\x1f\x7f-\x9f\ufffe\uffff])|(?P<backslash>\\)"
    r"|(?P<dot>\.(?=/|\Z))|(?P<empty>//|^/)"
)
_REASONS = {
    "utf8": "its name is not UTF-8",
    "control": "its name holds a control character",
    "backslash": "its name holds a backslash, which the store takes for a slash",
    "dot": "a part of its path ends with a dot, which a blob's name must not",
    "empty": "a part of its path is empty",
}


def objection(path: str, prefix: str = "") -> str:
    """Return why no blob can be called `prefix` + `path`, "" when one can; what is said is said of the path."""
    if bad := _UNFIT.search(path):
        return _REASONS[bad.lastgroup or ""]
    if len(path) > (room := MAX_CHARACTERS - len(prefix)):
        return f"its path has {len(path)} characters; the blob's name has room for {room}"
    if (parts := path.count("/") + 1) > (room := MAX_PARTS - prefix.count("/")):
        return f"its path has {parts} parts; the blob's name has room for {room}"
    return ""


def check_suffixes(suffixes: list[str]) -> tuple[str, ...]:
    """Return a site's own temporary suffixes in lower case. Raises ValueError with the rule."""
    for suffix in suffixes:
        if not SUFFIX.fullmatch(suffix):
            raise ValueError(f"suffix {suffix!r}: it has to be {SUFFIX_RULE}")
    return tuple(dict.fromkeys(suffix.lower() for suffix in suffixes))


def check_sendable(extensions: tuple[str, ...], temporary: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return extensions that files can have which are sent. Raises ValueError for one that no such file has."""
    for extension in extensions:
        if extension.lower().endswith((*RESERVED, *TEMPORARY, *temporary)):
            raise ValueError(f"extension {extension!r}: no file of this name is ever sent (docs/operations.md, Names)")
    return extensions

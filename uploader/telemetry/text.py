"""Text for logs and answers."""

import re


def shown(path: str) -> str:
    """Return a path as text that can be sent and logged: bytes that are not UTF-8 become escapes."""
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def fact(text: str) -> str:
    """Return what an error says, without what differs each time it is said."""
    return re.sub(r"\(x-ms-request-id [^)]*\)|-?\d+ minutes|\d\d:\d\d", "", text)

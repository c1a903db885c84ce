"""Text for logs and answers."""


def shown(path: str) -> str:
    """Return a path as text that can be sent and logged: bytes that are not UTF-8 become escapes."""
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()

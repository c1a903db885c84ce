"""A shard without one of its precautions, to be measured beside a whole one: python -m tests.bench.without receipts."""

import sys
from collections.abc import Callable

from uploader.__main__ import main
from uploader.share.filesystem import FileSystem
from uploader.share.journal import Journals


def _receipts() -> None:
    """Lines are made, and not written."""
    Journals.append = lambda _journals, _lines: None  # type: ignore[method-assign, assignment]


def _look() -> None:
    """Nobody is asked who has a file open, and nothing is written to the disk in place of the answer."""
    FileSystem.held_open = lambda _system, _fd: False  # type: ignore[method-assign, assignment]


def _lease() -> None:
    """As for files of somebody else, of which no lease tells: they are written to the disk."""
    FileSystem.held_open = lambda _system, _fd: None  # type: ignore[method-assign, assignment]


WITHOUT: dict[str, Callable[[], None]] = {"receipts": _receipts, "look": _look, "lease": _lease}

if __name__ == "__main__":
    WITHOUT[sys.argv.pop()]()
    main()

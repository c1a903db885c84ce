"""A row of the benchmark, and what was asked of all rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """`scratch`: a folder in memory; `repeats`: turns of each client; `before`: an older tree of this project, if any."""

    scratch: Path
    repeats: int
    quick: bool
    before: Path | None = None


@dataclass(frozen=True)
class Row:
    """`measure` returns the lines of its section: tables in markdown."""

    name: str
    title: str
    measure: Callable[[Asked], list[str]]

"""Count the file calls of a piece of work in a process of its own, for an audit hook can never be removed again."""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
WATCHED = {"open", "os.listdir", "os.scandir"}
calls: Counter[str] = Counter()


def counted(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do the work where `calls` counts what the thread that does it asks of the file system; return its result."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_count) as pool:
        return pool.submit(work, *args, **kwargs).result()


def _count() -> None:
    worker = threading.get_ident()

    def hook(event: str, about: tuple[object, ...]) -> None:
        # A descriptor that becomes a file object asks the file system for nothing.
        if event in WATCHED and threading.get_ident() == worker and not isinstance(about[0], int):
            calls[event] += 1

    sys.addaudithook(hook)

"""Clocks that tests move, so that times are exact however busy the machine is."""

import asyncio
import selectors
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from tests.support.programs import wait_for

T = TypeVar("T")


def tick(probe: Path, last: int = 0) -> None:
    """Wait until the clock that gives files their times is past `last`, in ns; 0: past now. `probe` is made for that."""
    probe.touch()
    last = last or probe.stat().st_mtime_ns

    def moved() -> bool:
        probe.touch()
        return probe.stat().st_mtime_ns > last

    wait_for(moved, "the file system's clock to move", interval=0.001)


class Clock(SimpleNamespace):
    """Replaces a module's `time`: passes only when it is moved, or when somebody sleeps."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class _Jumping(selectors.SelectSelector):
    """Returns at once and moves the clock by the seconds of the wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


def in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """Run this in an event loop whose clock jumps to the next timer. It may wait for timers only; the running loop's time() is the time that would have passed."""

    def make() -> asyncio.AbstractEventLoop:
        selector = _Jumping()
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(work)

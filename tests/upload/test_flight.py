"""No more is under way than keeps the line busy, and files take turns."""

import threading
from collections.abc import Callable

import pytest

from tests.support.programs import wait_for
from tests.upload.sending import in_thread
from uploader.errors import Cancelled
from uploader.upload.block import MIB, SMALLEST
from uploader.upload.flight import AHEAD, LEAST, Flight

MBIT = 1e6 / 8  # bytes per second


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("uploader.upload.line.time.monotonic", lambda: now[0])
    return now


def sent(flight: Flight, clock: list[float], size: int, rate: float) -> None:
    """Send blocks of these bytes in all, one after the other, over a line of this rate."""
    while size > 0:
        block = max(SMALLEST, min(8 * MIB, flight.wanted, size))
        flight.take(block, lambda: False)
        clock[0] += block / rate
        flight.give(block, confirmed=True)
        size -= block


def test_a_fast_line_gets_all_at_once(clock: list[float]) -> None:
    """After the first block of a local network nothing is held back: the memory is the bound."""
    flight = Flight()
    assert (flight.most, flight.wanted) == (LEAST, 0)
    sent(flight, clock, SMALLEST, 100e6)
    assert flight.most >= 128 * MIB
    assert flight.wanted >= 8 * MIB


@pytest.mark.parametrize("line", [1, 10, 100])
def test_a_slow_line_has_two_seconds_under_way(clock: list[float], line: int) -> None:
    """And at least two small blocks: 4.2 s of 1 Mbit/s, so that a kill costs less than 5 s."""
    flight = Flight()
    sent(flight, clock, 10 * line * MIB, line * MBIT)
    assert flight.most == pytest.approx(max(LEAST, AHEAD * line * MBIT), rel=0.01)
    assert flight.most / (line * MBIT) < 5


def test_a_line_that_changes_is_followed_and_a_pause_is_none_of_its_time(clock: list[float]) -> None:
    """Within seconds both ways; an hour without a file says nothing."""
    flight = Flight()
    sent(flight, clock, 100 * MIB, 100 * MBIT)
    clock[0] += 3600
    assert flight.most == pytest.approx(AHEAD * 100 * MBIT, rel=0.01)
    sent(flight, clock, SMALLEST, 100 * MBIT)
    assert flight.most == pytest.approx(AHEAD * 100 * MBIT, rel=0.01)
    sent(flight, clock, 16 * MIB, 10 * MBIT)
    assert flight.most == pytest.approx(AHEAD * 10 * MBIT, rel=0.1)
    sent(flight, clock, 100 * MIB, 100 * MBIT)
    assert flight.most == pytest.approx(AHEAD * 100 * MBIT, rel=0.1)


@pytest.mark.parametrize("late", [0.1, 3.0, 7.0])
def test_a_store_with_late_answers_is_no_slow_line(clock: list[float], late: float) -> None:
    """It answers each block after so many seconds, however many there are: more and more go at once."""
    flight = Flight()
    for _ in range(60):
        blocks = list[int]()
        while (block := max(SMALLEST, min(8 * MIB, flight.wanted))) + sum(blocks) <= flight.most and len(blocks) < 16:
            flight.take(block, lambda: False)
            blocks.append(block)
        clock[0] += late
        for block in blocks:
            flight.give(block, confirmed=True, answered=late)
    assert flight.wanted >= 8 * MIB
    assert flight.most >= 64 * MIB


def test_answers_that_are_late_because_much_is_under_way_let_no_more_go(clock: list[float]) -> None:
    """The quickest of the last answers counts."""
    flight = Flight()
    sent(flight, clock, 100 * MIB, 100 * MBIT)
    before = flight.most
    for late in 0.0, 5.0, 5.0:
        flight.take(SMALLEST, lambda: False)
        clock[0] += SMALLEST / (100 * MBIT)
        flight.give(SMALLEST, confirmed=True, answered=late)
    assert flight.most == pytest.approx(before, rel=0.01)


def test_what_failed_says_nothing_of_the_line(clock: list[float]) -> None:
    """A store that refuses at once is no fast line."""
    flight = Flight()
    flight.take(8 * MIB, lambda: False)
    clock[0] += 0.01
    flight.give(8 * MIB, confirmed=False)
    assert (flight.most, flight.wanted, flight.size) == (LEAST, 0, 0)


def asking(flight: Flight, size: int, cancelled: Callable[[], bool] = lambda: False) -> Callable[[], object]:
    """Ask on a thread, and return when it waits."""
    before = len(flight._waiting)
    ended = in_thread(lambda: flight.take(size, cancelled))
    wait_for(lambda: len(flight._waiting) > before, "it to wait")
    return ended


def test_files_take_turns(clock: list[float]) -> None:  # noqa: ARG001 no time passes
    """Who asked first goes first, though a smaller block would fit; and a block that is larger than all goes alone."""
    flight = Flight()
    flight.take(SMALLEST, lambda: False)
    large = asking(flight, LEAST + 1)
    small = asking(flight, 1000)
    flight.give(SMALLEST, confirmed=False)
    assert large() is None
    assert [size for size, _ in flight._waiting] == [1000]
    flight.give(LEAST + 1, confirmed=False)
    assert small() is None
    assert flight.size == 1000


def test_a_file_that_is_no_longer_wanted_stops_waiting(clock: list[float]) -> None:  # noqa: ARG001 no time passes
    """Its turn passes to the next, and nothing of it stays under way."""
    flight = Flight()
    flight.take(SMALLEST, lambda: False)
    stopped = threading.Event()
    gone = asking(flight, LEAST, stopped.is_set)
    behind = asking(flight, SMALLEST)
    stopped.set()
    assert isinstance(gone(), Cancelled)
    assert behind() is None
    assert (flight.size, len(flight._waiting)) == (LEAST, 0)

"""One turn at a time for those who run Python; nobody waits for long for a thread that hangs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from tests.support.programs import wait_for
from uploader import turns
from uploader.backlog.inventory import Item
from uploader.blob.rate_limit import RateLimit
from uploader.blob.transport import ThreadTransport
from uploader.share.fingerprint import look
from uploader.turns import FEW, FREE, INTERPRETER, LEAST, MANY, MOST, PERIOD, Turns
from uploader.upload.memory import Memory
from uploader.upload.worker import SMALL


class Clocks:
    """A second each time that it is asked, of which the process had `used` and `free` processors were idle."""

    def __init__(self, used: float = 1.0, free: float = 0.0) -> None:
        self.used, self.free, self.now = used, free, 0.0

    def turns(self) -> Turns:
        return Turns(lambda: self.used * self.now, lambda: self.free * self.now, lambda: self.now)


@contextmanager
def another(one: Turns) -> Iterator[threading.Event]:
    """Have another thread wait for a turn, which it keeps until the end; set as soon as it has gone on."""
    went, end = threading.Event(), threading.Event()

    def run() -> None:
        with one.turn():
            went.set()
            assert end.wait(30)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield went
    finally:
        end.set()
        thread.join(30)


def waits(one: Turns) -> bool:
    return bool(one._waiting)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 30)


@pytest.mark.usefixtures("patient")
def test_one_runs_at_a_time_in_the_order_of_arrival() -> None:
    one = Clocks().turns()
    with one.turn(), another(one) as went:
        wait_for(lambda: waits(one), "the second to wait")
        assert not went.is_set()
        one._give()
        assert went.wait(30)
        assert not one.taken()


@pytest.mark.usefixtures("patient")
def test_who_is_away_lets_another_run_and_waits_for_a_turn_afterwards() -> None:
    one = Clocks().turns()
    with one.turn():
        with one.away(), another(one) as went:
            assert went.wait(30)
            with one.away():  # without a turn it is nothing
                pass
        assert one.taken()
    assert not one.taken()
    assert one._out == 0


def test_nobody_waits_for_long_for_a_share_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second goes on without a turn, and gives none back."""
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    one = Clocks().turns()
    with one.turn():
        with another(one) as went:
            assert went.wait(30)
        assert (one._out, waits(one)) == (1, False)
        with another(one) as went:
            assert went.wait(30)


def test_a_turn_that_ends_with_an_error_is_given_back() -> None:
    one = Clocks().turns()
    with pytest.raises(KeyError), one.turn(), one.away():
        raise KeyError
    assert one._out == 0


@pytest.mark.parametrize(
    ("used", "free", "crowded", "count"),
    [
        (FEW - 0.1, FREE + 0.1, True, 6),  # the share is slow
        (FEW - 0.1, FREE + 0.1, False, 4),  # nobody waits
        (FEW - 0.1, FREE - 0.1, True, 4),  # other programs have the processors
        (LEAST - 0.1, 0.0, True, 6),  # so little they leave it always
        (FEW + 0.1, 1.0, True, 4),
        (MANY + 0.1, 1.0, True, 3),
    ],
)
def test_there_are_as_many_turns_as_keep_one_processor_busy(
    used: float, free: float, crowded: bool, count: int
) -> None:
    clocks = Clocks(used, free)
    one = clocks.turns()
    one.count, one._crowded = 4, crowded
    clocks.now = PERIOD / 2
    with one.turn():
        assert one.count == 4
    clocks.now = 2 * PERIOD
    with one.turn():
        assert one.count == count


@pytest.mark.parametrize(("used", "count"), [(0.0, MOST), (2.0, 1)])
def test_their_number_has_bounds(used: float, count: int) -> None:
    clocks = Clocks(used, 1.0)
    one = clocks.turns()
    for _ in range(2 * MOST):
        one._crowded = True
        clocks.now += 1
        with one.turn():
            pass
    assert one.count == count


@pytest.mark.usefixtures("patient")
def test_those_who_wait_get_the_turns_that_are_added() -> None:
    clocks = Clocks(0.0, 1.0)
    one = clocks.turns()
    with one.turn(), another(one) as second:
        wait_for(lambda: waits(one), "the second to wait")
        clocks.now = 1
        with one._lock:
            one._adapt()
        assert second.wait(30)


def test_the_system_tells_how_long_its_processors_were_idle() -> None:
    assert turns._idle() > 0


def test_where_the_system_does_not_tell_small_files_are_sent_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/stat")

    monkeypatch.setattr("builtins.open", hidden)
    assert turns._idle() == 0.0


@pytest.mark.parametrize(("size", "turn"), [(SMALL, True), (SMALL + 1, False)])
def test_a_small_file_takes_a_turn_and_a_large_one_none(tmp_path: Path, size: int, turn: bool) -> None:
    seen: list[bool] = []
    bed = Bed(tmp_path)
    bed.store.before["put"] = bed.store.before["stage"] = lambda _: seen.append(INTERPRETER.taken())
    bed.write("x", bytes(size))
    bed.transfer.block_size = 1 << 20
    bed.upload("x")
    bed.close()
    assert seen == [turn]
    assert not INTERPRETER.taken()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with the turn: "take" and "give", in order."""
    seen: list[str] = []
    take, give = INTERPRETER._take, INTERPRETER._give

    def noted(name: str, then: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            seen.append(name)
            then()

        return run

    monkeypatch.setattr(INTERPRETER, "_take", noted("take", take))
    monkeypatch.setattr(INTERPRETER, "_give", noted("give", give))
    return seen


def waiting(bed: Bed, *sizes: int) -> Callable[[], Item | None]:
    """Let files 0, 1, 2 of these sizes wait in the lane of small files; return what takes one of them."""
    bed.backlog.block_size = bed.transfer.block_size = 1 << 20
    for number, size in enumerate(sizes):
        bed.write(str(number), bytes(size))
        assert bed.backlog.offer(bed.files, str(number), look(None, str(bed.folder / str(number))))
    return bed.backlog.small.another


def test_a_worker_keeps_its_turn_for_the_small_files_that_follow(tmp_path: Path, taken: list[str]) -> None:
    """To hand a turn on costs a switch between two threads; while a file is sent another thread has the turn anyway."""
    bed = Bed(tmp_path)
    another = waiting(bed, 1, SMALL, 0)
    assert bed.workers.handle(bed.backlog.small.take(), another) is None
    bed.close()
    assert taken == ["take", "give"]
    assert bed.names() == ["0.completed", "1.completed", "2.completed"]


def test_a_larger_file_that_follows_is_handled_without_a_turn(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    another = waiting(bed, 1, SMALL + 1, 1)
    following = bed.workers.handle(bed.backlog.small.take(), another)
    assert following is not None
    assert following.path == "1"
    assert bed.names() == ["0.completed", "1", "2"]
    assert bed.files.snapshot().uploading == 1
    assert bed.workers.handle(following, another) is None
    bed.close()
    assert bed.names() == ["0.completed", "1.completed", "2"]


def test_a_worker_that_goes_on_without_a_turn_takes_one_for_the_next_file(tmp_path: Path) -> None:
    """Its turn did not come while the share was slow: without one it may end a file, and not begin the next."""
    bed = Bed(tmp_path)
    another = waiting(bed, 1, 1)
    bed.store.before["put"] = lambda _: INTERPRETER._give()
    assert bed.workers.handle(bed.backlog.small.take(), another) is None
    bed.close()
    assert bed.names() == ["0.completed", "1"]


def test_a_pause_between_two_tries_and_a_wait_for_the_rate_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("time.sleep", lambda _: seen.append(INTERPRETER.taken()))
    with INTERPRETER.turn():
        ThreadTransport(1, RateLimit(0)).sleep(1.0)
    assert seen == [False]


@pytest.mark.usefixtures("patient")
def test_a_wait_for_memory_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(INTERPRETER, "count", 1)
    memory = Memory(8, 8)
    memory.acquire(8)
    got = threading.Event()

    def run() -> None:
        with INTERPRETER.turn():
            memory.acquire(8)
            got.set()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: bool(memory._waiting), "the thread to wait for memory")
    with INTERPRETER.turn():
        assert INTERPRETER.taken()
    memory.release(8)
    assert got.wait(30)
    thread.join(30)

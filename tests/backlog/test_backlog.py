"""The queues between discovery and workers: bounded, fair to every session, and forgetting no file."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clock import Clock
from tests.support.programs import wait_for
from uploader.backlog import failures
from uploader.backlog.inventory import UNREMEMBERED, Inventory
from uploader.backlog.lane import AGAIN
from uploader.backlog.queues import Queues
from uploader.backlog.throughput import Throughput
from uploader.errors import NotEligible, StoreAway
from uploader.share.fingerprint import Fingerprint

BLOCK = 1000
SMALL, LARGE = Fingerprint(1, 10, 0, 0), Fingerprint(1, 10 * BLOCK, 0, 0)


@pytest.fixture
def backlog() -> Queues:
    return Queues(BLOCK)


def session(backlog: Queues, name: str = "run", limit: int = 100) -> Inventory:
    files = Inventory(name, limit)
    backlog.add(files)
    return files


def test_sessions_are_served_in_turn_whatever_their_length(backlog: Queues) -> None:
    """A session with five files does not wait behind one with fifty."""
    long, short = session(backlog, "long"), session(backlog, "short")
    for number in range(50):
        backlog.offer(long, f"{number}", SMALL)
    for number in range(5):
        backlog.offer(short, f"{number}", SMALL)
    first = [backlog.small.take().files.session for _ in range(10)]
    assert Counter(first) == {"long": 5, "short": 5}
    assert [backlog.small.take().path for _ in range(3)] == ["5", "6", "7"]


def test_small_files_do_not_wait_for_large_ones(backlog: Queues) -> None:
    """Small and large files have queues of their own, each with its workers."""
    files = session(backlog)
    for number in range(10):
        backlog.offer(files, f"large-{number}", LARGE)
    backlog.offer(files, "small", SMALL)
    assert backlog.small.take().path == "small"
    assert backlog.large.take().path == "large-0"


def test_no_file_is_taken_while_the_store_cannot_be_reached(backlog: Queues) -> None:
    """Neither by a worker that waited for a file when the store went away, nor by one that comes later."""
    files, reachable, taken = session(backlog), threading.Event(), []
    reachable.set()
    worker = threading.Thread(target=lambda: taken.append(backlog.small.take(reachable)), daemon=True)
    worker.start()
    wait_for(lambda: backlog.small._wanted._waiters, "the worker to wait for a file")  # type: ignore[attr-defined]
    reachable.clear()
    backlog.offer(files, "x", SMALL)
    wait_for(lambda: reachable._cond._waiters, "the worker to wait for the store")  # type: ignore[attr-defined]
    assert (files.uploading(), backlog.waits(files)) == (0, True)
    reachable.set()
    worker.join()
    assert [item.path for item in taken] == ["x"]


def test_another_file_is_taken_only_if_one_waits_and_the_store_can_be_reached(backlog: Queues) -> None:
    files, reachable = session(backlog), threading.Event()
    backlog.offer(files, "x", SMALL)
    assert backlog.small.another(reachable) is None
    assert files.uploading() == 0
    reachable.set()
    item = backlog.small.another(reachable)
    assert item
    assert (item.path, files.uploading()) == ("x", 1)
    assert backlog.small.another(reachable) is None


def test_queues_are_bounded_each_by_itself(backlog: Queues) -> None:
    """A full queue of large files leaves room for small ones, and a refused file can be offered later."""
    files = session(backlog, limit=3)
    assert [backlog.offer(files, f"s{number}", SMALL) for number in range(5)] == [True] * 3 + [False] * 2
    assert [backlog.offer(files, f"l{number}", LARGE) for number in range(5)] == [True] * 3 + [False] * 2
    assert backlog.offer(files, "s0", SMALL), "it is there already"
    assert files.pending() == 6
    files.done(backlog.small.take())
    assert backlog.offer(files, "s9", SMALL)


def test_a_path_is_with_one_worker_at_a_time(backlog: Queues) -> None:
    """A file that comes again while its name is uploaded waits until that upload has ended."""
    files = session(backlog)
    assert backlog.offer(files, "x", SMALL)
    item = backlog.small.take()
    assert backlog.offer(files, "x", LARGE)
    assert not backlog.waits(files)
    files.done(item)
    assert backlog.offer(files, "x", LARGE)
    assert backlog.large.waits(files)


def test_waiting_for_room_ends_when_there_is_some_or_the_session_has_ended(backlog: Queues) -> None:
    """The scan sleeps neither beside free room nor after its session's end."""
    files = session(backlog, limit=4)
    for number in range(4):
        backlog.offer(files, f"{number}", SMALL)
    began = time.monotonic()
    backlog.small.wait_for_room(files, 0.05)
    assert time.monotonic() - began >= 0.05

    def finish_one() -> None:
        files.done(backlog.small.take())

    def end() -> None:
        backlog.remove(files)

    waiters: Any = backlog.small._room
    for act in (finish_one, end):
        waiter = threading.Thread(target=backlog.small.wait_for_room, args=(files, 3600), daemon=True)
        waiter.start()
        wait_for(lambda: waiters._waiters, "the waiter to wait")
        act()
        waiter.join(60)
        assert not waiter.is_alive()
        backlog.offer(files, "again", SMALL)


def test_a_removed_session_is_served_no_more(backlog: Queues) -> None:
    """Its waiting files are dropped at once, and the upload in progress ends by itself."""
    files, other = session(backlog, "gone"), session(backlog, "other")
    for one in (files, other):
        backlog.offer(one, "x", SMALL)
        backlog.offer(one, "y", SMALL)
    busy = backlog.small.take()
    assert busy.files is files
    backlog.remove(files)
    backlog.remove(files)
    assert files.cancelled
    assert [files.knows("x"), files.knows("y")] == [True, False], "one is under way still"
    assert not backlog.offer(files, "z", SMALL)
    assert [backlog.small.take().files.session for _ in range(2)] == ["other", "other"]
    files.done(busy)
    assert not files.knows("x")


def test_no_worker_sleeps_while_files_wait(backlog: Queues) -> None:
    """Each offer wakes a worker, whatever the session, small and large."""
    sessions = [session(backlog, f"{number}", limit=1000) for number in range(3)]
    done = Counter[str]()
    lock = threading.Lock()

    def work(small: bool) -> None:
        while not (item := (backlog.small if small else backlog.large).take()).path.startswith("end-"):
            with lock:
                done[item.files.session] += 1
            item.files.done(item)
        item.files.done(item)

    workers = [threading.Thread(target=work, args=(number % 2 == 0,), daemon=True) for number in range(8)]
    for worker in workers:
        worker.start()
    for number in range(300):
        for files in sessions:
            assert backlog.offer(files, f"{number}", SMALL if number % 3 else LARGE)
    wait_for(lambda: sum(done.values()) == 900, "all files to be taken")
    for number in range(8):
        backlog.offer(sessions[0], f"end-{number}", SMALL if number % 2 else LARGE)
    for worker in workers:
        worker.join(60)
    assert done == {"0": 300, "1": 300, "2": 300}
    assert all(files.pending() == 0 for files in sessions)


def test_pending_counts_each_file_once_and_only_what_a_drain_waits_for(backlog: Queues) -> None:
    """A drain waits for every eligible file, and not for links or for what the sweeper has."""
    files = session(backlog)
    backlog.offer(files, "queued", SMALL)
    files.fail("queued", StoreAway("not now"))
    files.fail("failed", StoreAway("not now"))
    files.fail("link", NotEligible("a symbolic link"))
    files.given_back("back", SMALL, 5)
    files.end_scan(7)
    assert files.pending() == 1 + 1 + 1 + 7
    with files.reserve("swept") as alone:
        assert alone
        assert files.pending() == 10
        assert files.snapshot().waiting == 1 + 1 + 7


def test_failures_are_bounded(backlog: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for failed files is bounded, and what is remembered keeps its number of attempts."""
    monkeypatch.setattr(failures, "MAX_FAILURES", 10)
    files = session(backlog)
    for number in range(30):
        files.fail(f"{number}", StoreAway("not now"))
    assert files.snapshot().failed == 10
    files.fail("3", StoreAway("again"))
    assert (again := files.failure("3"))
    assert again.attempts == 2


def test_a_good_file_does_not_wait_behind_those_that_have_failed(backlog: Queues) -> None:
    """20,000 failed files, all due again, do not delay 200 new ones."""
    files = session(backlog, limit=2000)
    for number in range(20_000):
        files.fail(f"bad-{number}", StoreAway("not now"))
    offered = sum(backlog.offer(files, f"bad-{number}", SMALL) for number in range(20_000))
    assert offered == 2000, "their queue is full"
    assert backlog.small.full(files, again=True)
    for number in range(200):
        assert backlog.offer(files, f"good-{number}", SMALL)
    order = [backlog.small.take().path for _ in range(240)]
    assert sum(path.startswith("good") for path in order) >= 200
    assert any(path.startswith("bad") for path in order), "they have their turns too"


def test_a_file_that_has_failed_waits_not_for_ever_behind_good_ones(backlog: Queues) -> None:
    """A failed file is offered again after a bounded number of new ones."""
    files = session(backlog)
    files.fail("bad", StoreAway("not now"))
    backlog.offer(files, "bad", SMALL)
    for number in range(50):
        backlog.offer(files, f"good-{number}", SMALL)
    assert "bad" in [backlog.small.take().path for _ in range(AGAIN)]


def test_more_failing_files_than_can_be_remembered_slow_the_scan_and_no_worker(
    backlog: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan brings back at most UNREMEMBERED a second; a good file that an event brings goes at once."""
    clock = Clock()
    monkeypatch.setattr(failures, "MAX_FAILURES", 10)
    monkeypatch.setattr("uploader.backlog.inventory.time", clock)
    files = session(backlog)
    for number in range(10 + UNREMEMBERED):
        backlog.offer(files, f"{number}", SMALL)
        item = backlog.small.take()
        files.fail(item.path, StoreAway("not now"))
        files.done(item)
    assert clock.now == 1000.0, "no worker has waited"
    waited: list[float] = []
    monkeypatch.setattr(files._idle, "wait_for", lambda _, timeout: waited.append(timeout))
    files.pace()
    assert waited == [pytest.approx(1.0)]
    assert backlog.offer(files, "good", SMALL)
    clock.now += 1.01
    files.pace()
    assert len(waited) == 1


def test_a_session_that_ends_does_not_wait_for_the_pace(backlog: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is answered soon, even while the scan waits because of failing files."""
    monkeypatch.setattr(failures, "MAX_FAILURES", 0)
    files = session(backlog)
    backlog.offer(files, "x", SMALL)
    item = backlog.small.take()
    for _ in range(UNREMEMBERED * 60):
        files.fail(item.path, StoreAway("not now"))
    waiter = threading.Thread(target=files.pace)
    waiter.start()
    backlog.remove(files)
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_stop_waits_for_what_is_under_way_and_no_longer(backlog: Queues) -> None:
    """Claims are given back when no worker uses them any more, and not before."""
    files = session(backlog)
    backlog.offer(files, "x", SMALL)
    item = backlog.small.take()
    backlog.remove(files)
    assert not files.wait_idle(0.01)
    waiter = threading.Thread(target=files.wait_idle, args=(60,))
    waiter.start()
    files.done(item)
    waiter.join(10)
    assert not waiter.is_alive()
    assert files.wait_idle(0)


def test_what_a_whole_scan_did_not_see_is_forgotten(backlog: Queues) -> None:
    """Files that their producer removed are no longer counted as failed or settling."""
    files = session(backlog)
    files.begin_scan()
    for path in ("gone", "there", "queued"):
        files.fail(path, StoreAway("not now"))
        files.given_back(path, SMALL, 5)
    backlog.offer(files, "queued", SMALL)
    files.begin_scan()
    assert files.skip("there", time.monotonic())
    there = files.failure("there")
    assert there
    there.due = 0
    assert files.skip("there", time.monotonic()), "it has to settle still"
    files.end_scan(0)
    assert [path for path in ("gone", "there", "queued") if files.failure(path)] == ["there", "queued"]
    assert [path for path in ("gone", "there", "queued") if files.settling(path)] == ["there"]


def test_a_note_of_what_was_given_back_outlives_a_scan_that_met_it_under_way(backlog: Queues) -> None:
    """The worker has noted the give-back and still holds the path when the scan passes."""
    files = session(backlog)
    backlog.offer(files, "x", SMALL)
    item = backlog.small.take()
    files.given_back("x", SMALL, 5)
    files.begin_scan()
    assert files.skip("x", time.monotonic())
    files.done(item)
    files.end_scan(0)
    assert (settling := files.settling("x"))
    assert settling.given_back


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr("uploader.backlog.throughput.time.monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_the_rate_is_that_of_the_last_seconds(clock: list[float]) -> None:
    """Status shows how fast the session is now, and zero ten seconds after the last byte."""
    meter = Throughput()
    for _ in range(60):
        meter.add(1000)
        clock[0] += 1
    assert meter.rate() == pytest.approx(1000, rel=0.15)
    clock[0] += 11
    assert meter.rate() == 0
    clock[0] += 1
    meter.add(500)
    assert 0 < meter.rate() <= 1000
    assert meter.total == 60_500


def test_a_burst_leaves_no_rate_behind(clock: list[float]) -> None:
    """A short burst does not show a speed for ever."""
    meter = Throughput()
    clock[0] += 5
    meter.add(1000)
    clock[0] += 0.3
    meter.add(500)
    assert meter.rate() > 0
    clock[0] += 11
    assert meter.rate() == 0

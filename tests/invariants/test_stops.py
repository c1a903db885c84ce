"""A stop ends a session when everything is done, and not before; what goes wrong on the way leaves it as the record says."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.invariants.bed import Bed
from uploader import sweep
from uploader.errors import NotReady
from uploader.files import Files
from uploader.service import Service
from uploader.session import Session, State


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def record(service: Service) -> Session:
    found = service.records.get("run")
    assert found
    return found


def drained(bed: Bed, service: Service) -> Files:
    """Stop the session when x is in the store; here the test is its worker, so it says itself that all is done."""
    run = service.runs["run"]
    assert run.discovery
    run.discovery.stop()
    service.stop("run", drain=True)
    bed.upload("x")
    run.drained = True
    service._reconcile()
    assert record(service).state is State.STOPPED
    return run.files


def test_a_drain_waits_for_a_new_file_whose_name_the_sweeper_has(bed: Bed) -> None:
    """While it compares `x.completed` with the store, a scan cannot take the new `x`; it is there all the same."""
    bed.write("x", b"first")
    bed.upload("x")
    bed.write("x", b"second")
    ended: list[bool] = []
    bed.discovery.drain(lambda: ended.append(True))
    with bed.files.alone("x") as alone:
        assert alone
        bed.scan()
    assert not ended
    bed.settle()
    bed.scan()
    assert ended
    assert bed.content("x") == b"second"


def test_a_file_that_is_offered_while_the_sweeper_has_its_name_is_not_forgotten(bed: Bed) -> None:
    bed.write("x", b"content")
    item = bed.item("x")
    bed.backlog.done(item)
    with bed.files.alone("x"):
        assert bed.backlog.offer(bed.files, "x", item.found)
        assert bed.files.pending() == 1


def test_a_stop_that_cannot_be_written_down_leaves_the_session_running(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share is full: the caller gets 503, and what the record says goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(service.records, "replace", full)
        with pytest.raises(NotReady):
            service.stop("run", drain=False)
    service._reconcile()
    discovery = service.runs["run"].discovery
    assert discovery
    assert discovery.thread
    assert discovery.thread.is_alive()
    assert record(service).state is State.ACTIVE
    assert service.stop("run", drain=False)[0]["state"] == "stopped"


def test_a_stop_that_cannot_read_the_record_at_its_end_leaves_the_session_running(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share fails for a moment, when discovery has ended already: it is begun anew."""
    get, asked = service.records.get, iter(range(10))

    def failing(name: str) -> Session | None:
        if next(asked) == 1:
            raise OSError(5, "Input/output error")
        return get(name)

    with monkeypatch.context() as patch:
        patch.setattr(service.records, "get", failing)
        with pytest.raises(NotReady):
            service.stop("run", drain=False)
    service._reconcile()
    discovery = service.runs["run"].discovery
    assert discovery
    assert discovery.thread
    assert discovery.thread.is_alive()


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_that_another_process_got_ahead_of_says_so(service: Service, drain: bool) -> None:
    """A second process of this ordinal has changed the record: nothing is claimed that was not done."""
    theirs = replace(service.runs["run"].session, extensions=(".bin",))
    service.records.replace(theirs)
    with pytest.raises(NotReady, match="at the same moment"):
        service.stop("run", drain=drain)
    assert record(service) == theirs
    service._reconcile()
    assert service.runs["run"].session == theirs


class Turns:
    """A lock that notes who comes and goes, and when the second one has asked for it."""

    def __init__(self) -> None:
        self._lock, self._asked = threading.Lock(), 0
        self.second, self.order = threading.Event(), list[str]()

    def __enter__(self) -> None:
        self._asked += 1
        if self._asked == 2:
            self.second.set()
        self._lock.acquire()
        self.order.append("in")

    def __exit__(self, *_: object) -> None:
        self.order.append("out")
        self._lock.release()


def test_two_stops_at_once_take_turns(bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came late must not give back what a run that was started meanwhile has claimed."""
    bed.write("x.processing", b"content")
    unlink, paused, go = os.unlink, threading.Event(), threading.Event()

    def slow(path: Any, *, dir_fd: int | None = None) -> None:
        if path == "x.processing" and not paused.is_set():
            paused.set()
            assert go.wait(60)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", slow)
    run = service.runs["run"]
    run.ending = turns = Turns()  # type: ignore[assignment]
    stops = [threading.Thread(target=lambda: service.stop("run", drain=False), daemon=True) for _ in range(2)]
    stops[0].start()
    assert paused.wait(60)
    stops[1].start()
    assert turns.second.wait(60), "the second one does not wait for its turn"
    assert run.discovery, "nothing has ended yet"
    go.set()
    for stop in stops:
        stop.join(60)
        assert not stop.is_alive()
    assert turns.order == ["in", "out", "in", "out"]
    assert bed.names() == ["x"]
    assert record(service).state is State.STOPPED


def test_a_claim_that_could_not_be_given_back_is_not_forgotten(bed: Bed, service: Service) -> None:
    bed.write("x.processing", b"first")
    bed.write("x", b"second")
    service.stop("run", drain=False)
    assert bed.names() == ["x", "x.processing"]
    bed.sweeper._walk("run", service.runs["run"].files)
    assert record(service).state is State.STOPPED
    assert "next start" in service.runs["run"].files.kept["x.processing"]


def test_a_file_written_to_after_its_drained_session_has_stopped_is_sent_again(bed: Bed, service: Service) -> None:
    """NFS may bring a writer's last bytes within the retention: the session drains once more."""
    with bed.write("x", b"half").open("ab") as writer:
        files = drained(bed, service)
        writer.write(b" and the rest")
    bed.sweeper._walk("run", files)
    assert record(service).state is State.DRAINING
    assert bed.names() == ["x"]
    assert service.runs["run"].discovery


def test_a_session_that_was_stopped_at_once_stays_stopped(bed: Bed, service: Service) -> None:
    """Who stops without a drain wants nothing more to be sent; the file lies there under its own name."""
    bed.write("x", b"half")
    bed.upload("x")
    service.stop("run", drain=False)
    with (bed.folder / "x.completed").open("ab") as writer:
        writer.write(b" and the rest")
    bed.sweeper._walk("run", service.runs["run"].files)
    assert bed.names() == ["x"]
    assert service.records.get("run") is None or record(service).state is State.STOPPED


def test_a_record_that_cannot_be_removed_does_not_end_the_sweeper(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.stop("run", drain=False)
    with monkeypatch.context() as patch:
        patch.setattr(service.records, "remove", full)
        bed.walk()
    assert record(service).state is State.STOPPED
    bed.walk()
    assert service.records.get("run") is None


def test_a_record_that_another_shard_has_changed_is_not_overwritten(bed: Bed, service: Service) -> None:
    """A shard that slept while its session was adopted, ended and started anew must not end it."""
    bed.write("x", b"content")
    run = service.runs["run"]
    theirs = replace(run.session, owner=1, started_at="2030-01-01T00:00:00.000Z")
    service.records.replace(theirs)
    service.runs.stopped(run)
    assert record(service) == theirs
    assert "run" not in service.runs
    assert run.files.cancelled


class Clock(SimpleNamespace):
    """Stands where the sweeper looks for the time; a sweep ends where it would sleep."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        raise InterruptedError

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_a_session_that_stops_after_a_long_sweep_is_forgotten_soon(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause that follows a long walk over what a crash left is not for sessions that have stopped since."""
    clock = Clock()
    monkeypatch.setattr(sweep, "time", clock)
    bed = make()
    bed.write("x", b"content")
    bed.upload("x")
    bed.tick()
    bed = make(bed, sweep_interval=5)
    bed.store.before["head"] = lambda _: clock.pass_by(1000)
    clean: list[str] = []
    bed.sweeper.clean = clean.append
    with pytest.raises(InterruptedError):
        bed.sweeper._run()
    assert bed.names() == []
    assert bed.sweeper._next_walk["run", False] > clock.now + 2900, "an active session's next walk is far away"
    bed.sweeper.stopped.add("run")
    with pytest.raises(InterruptedError):
        bed.sweeper._run()
    assert clean == ["run"]

"""A stop ends a session when everything is done, and not before; after an error the session is as its record says."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.invariants.bed import Bed, Deaf
from tests.support.clock import Clock
from uploader.errors import NotReady
from uploader.session import Session, State
from uploader.sessions import ending
from uploader.sessions.service import Service
from uploader.sweep import sweeper
from uploader.web.openapi.models import SessionState


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def record(service: Service) -> Session:
    found = service.records.get("run")
    assert found
    return found


def drained(bed: Bed, service: Service) -> None:
    """Stop the session when x is in the store; here the test is its worker."""
    service.stop("run", drain=True)
    bed.handle(bed.backlog.small.take())
    assert service.runs.wake.wait(10)
    service.reconcile()
    assert record(service).state is State.STOPPED


def test_a_drain_waits_for_a_new_file_whose_name_the_sweeper_has(bed: Bed) -> None:
    """A scan cannot take the new x while the sweeper compares x.completed: the drain must not overlook it."""
    bed.write("x", b"first")
    bed.upload("x")
    bed.write("x", b"second")
    bed.discovery.drain()
    with bed.files.reserve("x") as alone:
        assert alone
        bed.scan()
    assert not bed.discovery.finished
    bed.settle()
    bed.scan()
    assert bed.discovery.finished
    assert bed.content("x") == b"second"


def test_a_file_that_is_offered_while_the_sweeper_has_its_name_is_not_forgotten(bed: Bed) -> None:
    """A file that cannot be queued now counts as pending, so that no drain ends without it."""
    bed.write("x", b"content")
    item = bed.item("x")
    bed.files.done(item)
    with bed.files.reserve("x"):
        assert bed.backlog.offer(bed.files, "x", item.found)
        assert bed.files.pending() == 1


def test_a_drain_that_is_ended_by_a_stop_at_once_has_not_drained(bed: Bed, service: Service) -> None:
    """Whoever reads `drained` in the result takes it for the proof that every file was finished."""
    bed.write("x", b"content")
    service.stop("run", drain=True)
    service.stop("run", drain=False)
    assert (record(service).state, record(service).drained) == (State.STOPPED, False)
    bed.walk()
    result = service.results.get("run")
    assert result
    assert (result.drained, [one.reason for one in result.left_behind]) == (False, [ending.AT_ONCE])


@pytest.mark.parametrize("drain", [True, False])
def test_a_shard_that_did_not_see_the_stop_claims_no_reason(
    make: Callable[..., Bed], bed: Bed, service: Service, drain: bool
) -> None:
    """Killed after the stop: that the file came too late, or had not had its turn, would be invented."""
    bed.write("x", b"content")
    if drain:
        drained(bed, service)
        bed.write("y", b"perhaps it had failed")
    else:
        service.stop("run", drain=False)
    after = make(bed)
    successor = Service(
        after.settings, after.share, service.records, service.replicas, Deaf(), after.backlog, after.completed
    )
    after.serve(successor)
    successor.reconcile()
    after.due()
    after.walk()
    result = successor.results.get("run")
    assert result
    assert [one.reason for one in result.left_behind] == [ending.NOT_KNOWN]


def test_a_stop_that_cannot_be_written_down_leaves_the_session_running(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full share the caller gets 503, and the session goes on as its record says."""
    with monkeypatch.context() as patch:
        patch.setattr(service.records, "replace", full)
        with pytest.raises(NotReady):
            service.stop("run", drain=False)
    service.reconcile()
    discovery = service.runs["run"].discovery
    assert discovery
    assert discovery.thread
    assert discovery.thread.is_alive()
    assert record(service).state is State.ACTIVE
    assert service.stop("run", drain=False).state is SessionState.STOPPED


def test_a_stop_that_cannot_read_the_record_at_its_end_leaves_the_session_running(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share fails after discovery has ended: the caller gets 503 and discovery runs again."""
    get, asked = service.records.get, iter(range(10))

    def failing(name: str) -> Session | None:
        if next(asked) == 1:
            raise OSError(5, "Input/output error")
        return get(name)

    with monkeypatch.context() as patch:
        patch.setattr(service.records, "get", failing)
        with pytest.raises(NotReady):
            service.stop("run", drain=False)
    service.reconcile()
    discovery = service.runs["run"].discovery
    assert discovery
    assert discovery.thread
    assert discovery.thread.is_alive()


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_that_another_process_got_ahead_of_says_so(service: Service, drain: bool) -> None:
    """Another process of this ordinal changed the record first: the caller is not told of a stop that was not made."""
    theirs = replace(service.runs["run"].session, extensions=(".bin",))
    service.records.replace(theirs)
    with pytest.raises(NotReady, match="at the same moment"):
        service.stop("run", drain=drain)
    assert record(service) == theirs
    service.reconcile()
    assert service.runs["run"].session == theirs


class Turns:
    """A lock that notes who comes and goes, and when the second caller has asked for it."""

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
    """A late stop must not give back what a run that was started since has claimed."""
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
    """The session's record stays, and status says that the next start finishes the file."""
    bed.write("x.processing", b"first")
    bed.write("x", b"second")
    service.stop("run", drain=False)
    assert bed.names() == ["x", "x.processing"]
    bed.walk()
    assert record(service).state is State.STOPPED
    assert "next start" in service.runs["run"].files.kept()["x.processing"]


def test_a_file_written_to_after_its_drained_session_has_stopped_is_sent_again(bed: Bed, service: Service) -> None:
    """NFS may bring a writer's last bytes within the retention: the session drains once more."""
    bed.write("x", b"half")
    drained(bed, service)
    bed.append("x.completed", b" and the rest")
    bed.walk()
    assert record(service).state is State.DRAINING
    assert bed.names() == ["x"]
    assert service.runs["run"].discovery


def test_a_drain_that_has_finished_goes_on_for_a_file_that_is_taken_back(bed: Bed, service: Service) -> None:
    """Its last scan saw the `.completed` of a file whose last bytes had not come: the session may not end without it."""
    bed.write("x", b"half")
    service.stop("run", drain=True)
    bed.handle(bed.backlog.small.take())
    assert service.runs.wake.wait(10)
    bed.append("x.completed", b" and the rest")
    bed.walk()
    service.reconcile()
    assert (record(service).state, bed.names()) == (State.DRAINING, ["x"])
    discovery = service.runs["run"].discovery
    assert discovery
    assert not discovery.finished


def test_a_file_that_is_taken_back_while_a_scan_passes_counts_as_pending(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan finds it under neither name that it takes: it must not end a drain."""
    bed.write("x", b"half")
    bed.upload("x")
    bed.append("x.completed", b" and the rest")
    link = os.link

    def scanned(*args: Any, **options: Any) -> None:
        bed.scan()
        link(*args, **options)

    monkeypatch.setattr(os, "link", scanned)
    bed.walk()
    assert (bed.names(), bed.files.pending()) == (["x"], 1)


def test_no_session_stops_while_a_file_of_it_is_taken_back(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lie there under its plain name, in a session that nobody runs."""
    bed.write("x", b"half")
    bed.handle(bed.backlog.small.take())
    bed.append("x.completed", b" and the rest")
    link, free = os.link, []

    def tried(*args: Any, **options: Any) -> None:
        other = threading.Thread(target=lambda: free.append(service._lock.acquire(blocking=False)))
        other.start()
        other.join()
        link(*args, **options)

    monkeypatch.setattr(os, "link", tried)
    bed.walk()
    assert (bed.names(), free) == (["x"], [False])


def test_a_session_whose_record_cannot_be_written_keeps_the_file_for_the_next_walk(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share is full: a file that were renamed already would lie in a session that nobody runs."""
    bed.write("x", b"half")
    drained(bed, service)
    bed.append("x.completed", b" and the rest")
    with monkeypatch.context() as patch:
        patch.setattr(service.records, "replace", full)
        bed.walk()
    assert record(service).state is State.STOPPED
    assert bed.names() == ["x.completed"]
    bed.walk()
    assert record(service).state is State.DRAINING
    assert bed.names() == ["x"]


class Killed(BaseException):
    """SIGKILL, as far as one thread can play it."""


@pytest.mark.parametrize("successor", [b"", b"the next of its name"])
def test_a_kill_between_the_record_and_the_rename_leaves_a_session_that_drains(
    bed: Bed, service: Service, successor: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says so on disk when the file is renamed; the next process finds both as they are, and sends it."""
    bed.write("x", b"half")
    drained(bed, service)
    bed.append("x.completed", b" and the rest")
    if successor:
        bed.write("x", successor)
    states = []

    def killed(*_: object, **__: object) -> None:
        states.append(record(service).state)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(Killed):
            bed.walk()
    assert states == [State.DRAINING]
    assert bed.names() == (["x"] if successor else []) + ["x.completed"]
    sent: list[bytes] = []
    bed.store.before["put"] = lambda _: sent.append((bed.folder / "x.processing").read_bytes())
    bed.again().settle()
    in_order = list(dict.fromkeys(sent))  # the first try of each finds that there is a blob
    assert in_order == [b"half and the rest"] + ([successor] if successor else [])
    assert bed.names() == []


def test_no_drain_ends_before_the_file_that_reopened_it_has_its_name_back(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovery of the reopened session begins after the rename: a scan before it would find nothing left to do."""
    bed.write("x", b"half")
    drained(bed, service)
    bed.append("x.completed", b" and the rest")
    link, seen = os.link, []

    def slow(*args: Any, **options: Any) -> None:
        discovery = service.runs["run"].discovery
        seen.append(discovery.thread if discovery else None)
        link(*args, **options)

    monkeypatch.setattr(os, "link", slow)
    bed.walk()
    discovery = service.runs["run"].discovery
    assert seen == [None]
    assert discovery
    assert discovery.thread


def test_a_walk_that_began_before_a_restart_of_its_session_touches_nothing(bed: Bed, service: Service) -> None:
    """What it knew of the session is out of date; the next walk knows better."""
    bed.write("x", b"half")
    drained(bed, service)
    bed.append("x.completed", b" and the rest")
    before = service.owned()["run"]
    service.start("run", None, None)
    bed.sweeper.walk_once(before)
    assert bed.names() == ["x.completed"]


def test_a_session_that_was_stopped_at_once_stays_stopped(bed: Bed, service: Service) -> None:
    """After a stop without drain nothing more is sent: the changed file is left under its plain name."""
    bed.write("x", b"half")
    bed.handle(bed.backlog.small.take())
    service.stop("run", drain=False)
    bed.append("x.completed", b" and the rest")
    bed.walk()
    assert bed.names() == ["x"]
    assert service.records.get("run") is None or record(service).state is State.STOPPED


def test_a_record_that_cannot_be_removed_does_not_end_the_sweeper(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next walk removes the record."""
    service.stop("run", drain=False)
    with monkeypatch.context() as patch:
        patch.setattr(service.records, "remove", full)
        bed.walk()
    assert record(service).state is State.STOPPED
    bed.walk()
    assert service.records.get("run") is None


def test_a_record_that_another_shard_has_changed_is_not_overwritten(bed: Bed, service: Service) -> None:
    """A shard that slept while its session was adopted and started again must not end it."""
    bed.write("x", b"content")
    run = service.runs["run"]
    theirs = replace(run.session, owner=1, started_at="2030-01-01T00:00:00.000Z")
    service.records.replace(theirs)
    service.runs.stopped(run, drained=True)
    assert record(service) == theirs
    assert "run" not in service.runs
    assert run.files.cancelled


class OneSweep(Clock):
    """Replaces the sweeper's time module; where the sweeper would sleep, it raises to end the sweep."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        raise InterruptedError

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_a_session_that_stops_after_a_long_sweep_is_forgotten_soon(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause after a long walk over a crash's leftovers does not delay sessions that have stopped since."""
    clock = OneSweep()
    monkeypatch.setattr(sweeper, "time", clock)
    bed = make()
    bed.write("x", b"content")
    bed.upload("x")
    bed.tick()
    bed = make(bed, sweep_interval=5)
    bed.store.before["head"] = lambda _: clock.pass_by(1000)
    with pytest.raises(InterruptedError):
        bed.sweeper._run()
    assert bed.names() == []
    assert bed.sweeper._next_walk["run", False] > clock.now + 2900, "an active session's next walk is far away"
    bed.session.stopped = True
    with pytest.raises(InterruptedError):
        bed.sweeper._run()
    assert bed.session.ended == ["run"]

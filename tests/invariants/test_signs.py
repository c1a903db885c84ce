"""What shows that a file is finished: after a restart our own give-back must not pass for a producer's rename (I5)."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.invariants.bed import BLOCK, Bed, Deaf
from tests.support.programs import wait_for
from uploader.backlog.queues import Queues
from uploader.cluster.replicas import FixedReplicas
from uploader.session import Session
from uploader.sessions.records import Records
from uploader.sessions.runs import Run
from uploader.sessions.service import Service
from uploader.share.mark import Mark
from uploader.share.mount import OWN
from uploader.sweep.seal import Sealed
from uploader.telemetry import names


@pytest.fixture
def slow(make: Callable[..., Bed]) -> Iterator[tuple[Bed, Service]]:
    """A shard on which nothing settles within the test."""
    bed = make(settle=3600)
    records = Records(bed.root / OWN / "sessions", 0)
    service = Service(bed.settings, bed.share, records, FixedReplicas(1), Deaf(), Queues(BLOCK), bed.completed)
    yield bed, service
    for run in service.runs.values():
        if run.discovery:
            run.discovery.stop()


def signed(bed: Bed) -> None:
    """Write a file whose ctime is later than its mtime, as after a rename."""
    path = bed.write("x", b"content")
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 1_000_000_000))


def looked_at(run: Run) -> Run:
    wait_for(lambda: run.files.remembers("x"), "a look")
    return run


def test_what_comes_into_a_folder_that_its_start_has_made_goes_at_once(
    slow: tuple[Bed, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the folder and the first scan."""
    bed, service = slow
    bed.folder.rmdir()
    create = service.records.create

    def late(session: Session) -> bool:
        signed(bed)
        bed.tick()
        return create(session)

    monkeypatch.setattr(service.records, "create", late)
    service.start("run", None, None)
    assert looked_at(service.runs["run"]).files.knows("x")


def test_what_lies_in_a_folder_that_was_there_before_has_to_settle(slow: tuple[Bed, Service]) -> None:
    """A session of that name may have been stopped at once and swept, and have given its claims back."""
    bed, service = slow
    service.start("run", None, None)
    service.stop("run", drain=False)
    service.swept("run", Sealed({}))
    assert service.records.get("run") is None
    signed(bed)
    service.start("run", None, None)
    assert looked_at(service.runs["run"]).files.settling("x")


def test_what_happened_before_a_restart_is_no_sign(slow: tuple[Bed, Service]) -> None:
    """The rename may have been the dead process's give-back of a file that still changes."""
    bed, service = slow
    service.start("run", None, None)
    run = service.runs["run"]
    service.runs.leave(run)
    signed(bed)
    assert looked_at(service.runs.launch(run.session, names.SESSION_RESUMED)).files.settling("x")


def test_what_happened_before_a_stopped_session_was_started_again_is_no_sign(slow: tuple[Bed, Service]) -> None:
    """The stop gave its claims back, and those renames say nothing about the producer."""
    bed, service = slow
    service.start("run", None, None)
    service.stop("run", drain=False)
    signed(bed)
    service.start("run", None, None)
    assert looked_at(service.runs["run"]).files.settling("x")


def test_what_happens_after_the_first_scan_of_a_session_taken_up_again_is_a_sign(make: Callable[..., Bed]) -> None:
    """Even without events, a file that is moved into a quiet session goes at once (A7)."""
    bed = make(settle=3600)
    bed.scan()
    bed.tick()
    signed(bed)
    bed.scan()
    assert bed.files.knows("x")


class Killed(BaseException):
    """SIGKILL, as far as one thread can play it."""


def worker(other: Bed) -> None:
    other.write("x", b"content")
    item = other.item("x")
    other.store.before["put"] = lambda _: other.files.cancel()
    with (other.folder / "x").open("ab") as writer:
        writer.write(b" and its end")
        writer.flush()
        other.handle(item)


def stop(other: Bed) -> None:
    other.write("x.processing", b"content")
    other.give_back()


def sweeper(other: Bed) -> None:
    with other.write("x", b"content").open("ab") as writer:
        other.upload("x")
        writer.write(b" and its end")
    other.due()


@pytest.mark.parametrize("gives_back", [worker, stop, sweeper])
@pytest.mark.parametrize("killed", ["", "link", "unlink"])
def test_what_another_process_gives_back_has_to_settle(
    make: Callable[..., Bed], gives_back: Callable[[Bed], None], killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another shard, a second process of this ordinal, or a worker of this one that a stop did not wait for."""
    bed = make(settle=3600)
    bed.scan()
    bed.tick()
    other = make(bed, settle=0)
    if killed:
        monkeypatch.setattr(os, killed, dying(getattr(os, killed)))
    with suppress(Killed):
        gives_back(other)
    monkeypatch.undo()
    other.store.before.clear()
    bed.tick()
    bed.scan()
    bed.work()
    bed.tick()
    bed.scan()
    assert bed.files.settling("x")
    assert not bed.files.knows("x")
    assert (bed.folder / "x").exists()


def dying(call: Callable[..., None]) -> Callable[..., None]:
    """Die right after the call."""

    def made(*args: Any, **options: Any) -> None:
        call(*args, **options)
        raise Killed

    return made


def test_what_is_given_back_while_a_scan_runs_waits_for_the_next(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan has read the mark before it was set."""
    bed = make(settle=3600)
    bed.scan()
    bed.tick()
    until = Mark.until

    def late(mark: Mark) -> int:
        before = until(mark)
        monkeypatch.undo()
        bed.tick()
        stop(make(bed))
        return before

    monkeypatch.setattr(Mark, "until", late)
    bed.scan()
    bed.scan()
    assert bed.files.settling("x")


def test_a_sign_that_came_while_a_scan_ran_counts_in_the_next(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = make(settle=3600)
    bed.scan()
    until = Mark.until

    def late(mark: Mark) -> int:
        monkeypatch.undo()
        bed.tick()
        signed(bed)
        return until(mark)

    monkeypatch.setattr(Mark, "until", late)
    bed.scan()
    assert not bed.files.knows("x")
    bed.scan()
    assert bed.files.knows("x")


def test_a_mark_is_never_shortened_and_goes_with_its_record(bed: Bed, service: Service) -> None:
    mark = Mark(bed.share, "run")
    assert mark.until() == 0
    mark.set()
    first = mark.until()
    assert first > bed.share.server_time()
    timeout, bed.share.timeout = bed.share.timeout, 0
    mark.set()
    assert mark.until() == first
    bed.share.timeout = timeout
    service.stop("run", drain=False)
    service.swept("run", Sealed({}))
    assert mark.until() == 0


def test_another_users_mark_keeps_no_claim(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As whom the pods ran before: only a file's owner may set its times."""
    (mark := Mark(bed.share, "run")).set()
    os.utime(path := bed.root / OWN / "given-back/run", ns=(0, 0))
    others, utime = path.stat().st_ino, os.utime

    def owned(target: Any, **times: Any) -> None:
        if times and os.stat(target).st_ino == others:
            raise PermissionError(1, "Operation not permitted")
        utime(target, **times)

    with path.open("rb"):  # so that the next file gets another inode
        monkeypatch.setattr(os, "utime", owned)
        stop(bed)
    assert bed.names() == ["x"]
    assert mark.until() > bed.share.server_time()


@pytest.mark.parametrize("at", ["mark", "record"])
def test_killed_between_the_mark_and_its_record_a_swept_session_is_forgotten_by_the_next_walk(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The mark goes first: without its record nobody would come to it."""
    Mark(bed.share, "run").set()
    service.stop("run", drain=False)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Mark if at == "mark" else service.records, "remove", killed)
        with pytest.raises(Killed):
            service.swept("run", Sealed({}))
    assert service.records.get("run")
    bed.walk()
    assert service.records.get("run") is None
    assert not list((bed.root / OWN / "given-back").iterdir())

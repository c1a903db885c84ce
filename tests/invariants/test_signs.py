"""What shows that a file is finished: after a restart our own give-back must not pass for a producer's rename (I5)."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.invariants.bed import BLOCK, Bed, Deaf
from tests.support.programs import wait_for
from uploader.backlog.queues import Queues
from uploader.cluster.replicas import FixedReplicas
from uploader.sessions.records import Records
from uploader.sessions.runs import Run
from uploader.sessions.service import Service
from uploader.share.mount import OWN
from uploader.telemetry import names


@pytest.fixture
def slow(make: Callable[..., Bed]) -> Iterator[tuple[Bed, Service]]:
    """A shard on which nothing settles within the test."""
    bed = make(settle=3600)
    records = Records(bed.root / OWN / "sessions", 0)
    service = Service(bed.settings, bed.share, records, FixedReplicas(1), Deaf(), Queues(BLOCK))
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


def test_what_lies_in_a_new_session_goes_at_once(slow: tuple[Bed, Service]) -> None:
    """In a session without history a rename can only be the producer's: nobody has to wait for `settle`."""
    bed, service = slow
    signed(bed)
    service.start("run", None, None)
    assert looked_at(service.runs["run"]).files.knows("x")


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

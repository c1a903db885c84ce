"""What has to be read before it may be deleted, and is large, holds up no other deletion."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.invariants.bed import Bed
from tests.support.programs import wait_for
from uploader.blob.checksum import crc64
from uploader.blob.store import Label
from uploader.share.fingerprint import Fingerprint
from uploader.sweep import deletion, verdict

LARGE = 1000  # bytes
CONTENT = os.urandom(LARGE + 1)


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "LARGE", LARGE)


def left_behind(bed: Bed, path: str, content: bytes) -> None:
    """Have a file that an earlier process completed, and its blob."""
    file = bed.write(path, content)
    bed.tick()
    file.rename(f"{file}.completed")
    bed.store.put(f"run/{path}", content, Label(len(content), crc64(content), None, 0, None, 0, "run", "x/y"), None)


@contextmanager
def reading(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a thread read the next large file, whose read does not end inside the block."""
    begun, go_on = threading.Event(), threading.Event()
    read = verdict._begins

    def held(fd: int, size: int, crc: int) -> bool:
        if size > LARGE:
            begun.set()
            assert go_on.wait(60)
        return read(fd, size, crc)

    monkeypatch.setattr(verdict, "_begins", held)
    thread = threading.Thread(target=bed.sweeper.deletion.read_next)
    thread.start()
    try:
        wait_for(begun.is_set, "the read to begin")
        yield
    finally:
        go_on.set()
        thread.join()


def test_a_large_leftover_is_read_beside_the_other_deletions(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read the walk goes on, other leftovers are deleted, and so is what this process has completed."""
    left_behind(bed, "large", CONTENT)
    left_behind(bed, "small", b"content")
    bed.walk()
    assert bed.names() == ["large.completed"]
    with reading(bed, monkeypatch):
        left_behind(bed, "another", b"content")
        bed.write("mine", b"mine")
        bed.upload("mine")
        bed.walk()
        bed.due()
        assert bed.names() == ["large.completed"]
    bed.due()
    assert bed.names() == []
    assert bed.files.snapshot().completed == 4


def test_a_large_file_that_is_due_and_was_touched_holds_up_no_other(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's chmod after the upload: only its content tells, and what else is due does not wait for that."""
    bed.write("large", CONTENT)
    bed.write("small", b"content")
    bed.upload("large")
    bed.upload("small")
    bed.tick()
    (bed.folder / "large.completed").chmod(0o600)
    bed.due()
    assert bed.names() == ["large.completed"]
    with reading(bed, monkeypatch):
        bed.due()
        bed.walk()
        assert bed.names() == ["large.completed"]
    assert bed.names() == []
    assert len(list(bed.completed.receipts.read("run"))) == 2


def test_a_large_leftover_whose_times_cannot_tell_is_read_twice(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a coarse clock: for its receipt, and before it is deleted."""
    monkeypatch.setattr(Fingerprint, "coarse", True)
    left_behind(bed, "large", CONTENT)
    bed.walk()
    bed.sweeper.deletion.read_next()
    bed.due()
    bed.sweeper.deletion.read_next()
    assert bed.names() == []


def test_a_large_leftover_with_other_content_is_kept(bed: Bed) -> None:
    """The thread that reads acts on every verdict."""
    left_behind(bed, "large", CONTENT)
    (bed.folder / "large.completed").write_bytes(CONTENT[::-1])
    bed.walk()
    assert not bed.files.kept()
    bed.sweeper.deletion.read_next()
    assert list(bed.files.kept()) == ["large.completed"]


def test_a_large_file_that_has_gone_is_forgotten(bed: Bed) -> None:
    """Between the walk and the read anybody may delete it, or rename its folder."""
    left_behind(bed, "gone", CONTENT)
    left_behind(bed, "folder/renamed", CONTENT)
    bed.walk()
    (bed.folder / "gone.completed").unlink()
    (bed.folder / "folder").rename(bed.folder / "other")
    bed.sweeper.deletion.read_next()
    bed.sweeper.deletion.read_next()
    assert bed.names() == ["other/renamed.completed"]
    assert not bed.files.kept()


def test_a_stopped_session_ends_when_its_large_leftover_is_read(bed: Bed) -> None:
    """It is left until then."""
    left_behind(bed, "large", CONTENT)
    bed.session.stopped = True
    bed.walk()
    assert bed.session.ended == []
    bed.sweeper.deletion.read_next()
    bed.due()
    bed.walk()
    assert bed.session.ended == ["run"]


def test_what_is_due_does_not_wait_for_the_end_of_a_long_walk(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk over many leftovers, each compared with the store, can take longer than a sweep's interval."""
    bed = make(sweep_interval=5)
    bed.sweeper.collect_due(0.0)
    bed.write("mine", b"mine")
    bed.upload("mine")
    left_behind(bed, "a", b"content")
    left_behind(bed, "b", b"content")
    names: list[list[str]] = []
    clock = [0.0]

    def slow(_: str) -> None:
        clock[0] += 10
        names.append(bed.names())

    bed.store.before["head"] = slow
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + clock[0])
    bed.walk()
    assert "mine.completed" not in names[-1]


def test_a_worker_and_the_sweeper_write_one_receipt(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that makes room for the next file of the name may come while the sweeper writes the receipts."""
    bed.write("x", b"content")
    bed.upload("x")
    written: list[list[bytes]] = []
    second = threading.Thread(target=bed.completed.write_receipts, args=(bed.files, ["x"]))
    write = bed.completed.receipts.write

    def slow(session: str, lines: list[bytes]) -> None:
        if not written:
            written.append(lines)
            second.start()
            second.join(0.2)  # without a lock it would have written by now
        write(session, lines)

    monkeypatch.setattr(bed.completed.receipts, "write", slow)
    bed.completed.write_receipts(bed.files, ["x"])
    second.join()
    journals = bed.completed.receipts.of("run")
    assert len(list(journals.lines(journals.sizes()))) == 1

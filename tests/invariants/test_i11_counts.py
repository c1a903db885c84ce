"""I11: receipts count what was deleted and nothing else, whoever is killed between a receipt and its deletion."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.invariants.bed import NFS, Bed
from uploader.backlog.snapshot import Snapshot
from uploader.errors import ShareLost
from uploader.session import State
from uploader.sessions.service import Service
from uploader.share.journal import Journals, Line
from uploader.share.mount import OWN
from uploader.sweep.receipts import Receipts

SEALED = "/.receipts/"


def restarted(bed: Bed, **settings: Any) -> Bed:
    """Return a new process's parts, which have counted what is there."""
    after = bed.again(**settings)
    after.files.count_receipts(*after.completed.receipts.count("run"))
    after.files.receipted = lambda files: after.completed.receipts.among("run", files)
    after.discovery.count_completed()
    return after


def receipted(bed: Bed, content: bytes) -> Path:
    """Leave x as a process does that is killed between its receipt and its deletion."""
    bed.write("x", content)
    bed.upload("x")
    bed.completed.write_receipts(bed.files, ["x"])
    bed.tick()
    return bed.folder / "x.completed"


def counted(bed: Bed) -> tuple[int, int]:
    now = bed.files.snapshot()
    return now.completed, now.bytes_uploaded


def refused(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def grown(path: Path) -> None:
    with path.open("ab") as writer:
        writer.write(b" and more")


def put_back(path: Path) -> None:
    """Write as rsync --inplace --times does."""
    before = path.stat()
    with path.open("r+b") as writer:
        writer.write(b"CONT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], None]] = {"grown": grown, "mtime put back": put_back, "touched": os.utime}


@pytest.mark.parametrize("births", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_written_to_after_its_receipt_and_a_kill_counts_once(
    make: Callable[..., Bed], change: str, births: bool
) -> None:
    """The dead process's receipt is of what was not deleted: it counts no more once the file is sent again."""
    bed = make(tells=None if births else NFS)
    file = receipted(bed, b"content")
    CHANGES[change](file)
    size = file.stat().st_size
    bed = restarted(bed)
    assert counted(bed) == (1, 7)
    if births or change != "mtime put back":  # without births such a file is kept, below
        bed.settle()
        assert (bed.names(), counted(bed)) == ([], (1, size))
        assert bed.completed.receipts.count("run")[:2] == (1, size)
        assert counted(restarted(bed)) == (1, size)


def test_a_touched_file_that_is_sent_again_is_told_from_the_one_before(make: Callable[..., Bed]) -> None:
    """Its blob names it with its new time: killed after its next receipt, and written to once more, it counts once."""
    bed = make(tells=NFS)
    os.utime(receipted(bed, b"content"))
    bed.due()
    assert bed.names() == ["x"]
    bed.scan()
    bed.work()
    bed.completed.write_receipts(bed.files, ["x"])
    bed.tick()
    grown(bed.folder / "x.completed")
    bed = restarted(bed)
    assert counted(bed)[0] == 1
    bed.settle()
    assert bed.completed.receipts.count("run") == (1, len(b"content and more"), 0)
    assert counted(bed) == (1, len(b"content and more"))


@pytest.mark.parametrize("births", [True, False])
@pytest.mark.parametrize("content", [b"content", b""])
def test_the_next_file_with_the_same_inode_and_content_has_a_receipt_of_its_own(
    make: Callable[..., Bed], births: bool, content: bytes
) -> None:
    """A file system gives an inode again at once: the receipt of the file that had it before goes on counting."""
    bed = make(tells=None if births else NFS)
    bed.write("x", content)
    bed.settle()
    (one,) = bed.completed.receipts.read("run")
    bed.tick()
    bed.write("x", content)
    inode = (bed.folder / "x").stat().st_ino
    _same_inode(bed, one, inode)
    bed.upload("x")
    bed = restarted(bed)
    bed.settle()
    assert bed.names() == []
    assert bed.completed.receipts.count("run")[0] == 2
    assert bed.files.snapshot().completed == 2


@pytest.mark.parametrize("births", [True, False])
def test_a_file_that_grows_takes_back_no_receipt_of_the_one_before(make: Callable[..., Bed], births: bool) -> None:
    """That one had the same name and inode, and was deleted."""
    bed = make(tells=None if births else NFS)
    bed.write("x", b"before")
    bed.settle()
    (one,) = bed.completed.receipts.read("run")
    file = receipted(bed, b"content")
    (journal,) = (bed.root / OWN / "receipts/run").iterdir()
    lines = [orjson.loads(line) | {"inode": file.stat().st_ino} for line in journal.read_bytes().splitlines()]
    journal.write_bytes(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
    assert lines[0]["etag"] == one["etag"]
    grown(file)
    bed = restarted(bed)
    bed.settle()
    assert bed.names() == []
    assert sorted(line["size"] for line in bed.completed.receipts.read("run")) == [6, len(b"content and more")]
    assert bed.files.snapshot().completed == 2


def _same_inode(bed: Bed, one: dict[str, Any], inode: int) -> None:
    """Have the receipt and the blob say what they would, had the file system given that inode."""
    (journal,) = (bed.root / OWN / "receipts/run").iterdir()
    journal.write_bytes(orjson.dumps(one | {"inode": inode}, option=orjson.OPT_APPEND_NEWLINE))
    there = bed.store.head("run/x")
    etag = bed.store.annotate("run/x", {**there.metadata, "inode": str(inode)}, there.etag)
    journal.write_bytes(orjson.dumps(one | {"inode": inode, "etag": etag}, option=orjson.OPT_APPEND_NEWLINE))


def test_a_receipt_of_a_file_that_turns_out_not_to_be_in_the_store_counts_no_more(make: Callable[..., Bed]) -> None:
    """Killed before the deletion, and the blob is gone: it is kept and shown, and never counted as sent as well."""
    bed = make()
    receipted(bed, b"content")
    del bed.store._blobs["run/x"]
    bed = restarted(bed)
    bed.walk()
    assert (bed.names(), list(bed.files.kept()), counted(bed)) == (["x.completed"], ["x.completed"], (0, 0))
    assert bed.completed.receipts.count("run") == (0, 0, 0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_a_receipt_that_counts_no_more_is_told_whatever_order_the_journals_are_read_in(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch, first: int, known: bool
) -> None:
    """The shard that takes a file back may have another number than the one whose receipt it was, lower or higher."""
    bed = make(ordinal=first)
    file = receipted(bed, b"content")
    bed = restarted(bed, ordinal=1 - first)
    if known:  # it has found the file proven, and the deletion has failed
        with monkeypatch.context() as patch:
            patch.setattr(bed.completed, "delete", refused)
            bed.walk()
        bed.completed.proofs.put_off(("run", "x"), 0)
    grown(file)
    bed.due()
    bed.walk()
    assert bed.names() == ["x"]
    assert bed.completed.receipts.count("run") == (0, 0, 0)
    assert counted(bed) == (0, 0)


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_that_is_sent_as_it_was_before_has_a_receipt_that_counts(make: Callable[..., Bed], first: int) -> None:
    """Path, inode, time and blob may all be those of the receipt that counts no more."""
    bed = make(ordinal=first)
    file = receipted(bed, b"content")
    before = file.stat()
    grown(file)
    bed = restarted(bed, ordinal=1 - first)
    bed.walk()
    assert bed.names() == ["x"]
    os.truncate(bed.folder / "x", 7)
    os.utime(bed.folder / "x", ns=(before.st_atime_ns, before.st_mtime_ns))
    bed.settle()
    assert bed.names() == []
    assert bed.completed.receipts.count("run") == (1, 7, 0)
    assert counted(bed) == (1, 7)


class Killed(BaseException):
    """SIGKILL, as far as one thread can play it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def test_killed_after_a_receipt_was_taken_back_and_before_the_rename_it_is_not_taken_back_twice(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(receipted(bed, b"content"))
    bed = restarted(bed)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(Killed):
            bed.walk()
    assert bed.names() == ["x.completed"]
    bed = restarted(bed)
    bed.settle()
    assert (bed.names(), counted(bed)) == ([], (1, len(b"content and more")))
    assert bed.completed.receipts.count("run")[0] == 1


def test_a_receipt_holds_although_somebody_has_changed_the_metadata_of_its_blob(bed: Bed) -> None:
    """The blob has another etag by then; the file's path, inode and mtime are those of the receipt."""
    receipted(bed, b"content")
    there = bed.store.head("run/x")
    bed.store.annotate("run/x", {**there.metadata, "label": "theirs"}, there.etag)
    bed = restarted(bed)
    bed.settle()
    assert (bed.names(), counted(bed)) == ([], (1, 7))
    assert [path.read_bytes().count(b"\n") for path in (bed.root / OWN / "receipts/run").iterdir()] == [1]


def test_a_receipt_that_is_written_while_a_restart_counts_what_is_there_counts_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper may be ahead of the count, and find that its file has no receipt yet."""
    bed.write("x", b"content")
    bed.upload("x")
    bed = restarted(bed)
    monkeypatch.setattr(bed.completed, "delete", refused)
    bed.files.uncount("x", None)  # as if the count had still to come
    bed.walk()
    assert counted(bed) == (1, 7)
    bed.discovery.count_completed()
    assert counted(bed) == (1, 7)


def test_two_receipts_of_one_file_are_both_taken_back(bed: Bed) -> None:
    """Two processes may have written one each."""
    file = receipted(bed, b"content")
    (line,) = [path.read_bytes() for path in (bed.root / OWN / "receipts/run").iterdir()]
    Receipts(bed.share, 0).write("run", [line])
    grown(file)
    bed = restarted(bed)
    assert counted(bed) == (1, 7)
    bed.walk()
    assert bed.names() == ["x"]
    assert bed.completed.receipts.count("run") == (0, 0, 0)
    assert counted(bed) == (0, 0)


def test_a_file_that_was_moved_after_its_receipt_and_grows_counts_once(bed: Bed) -> None:
    """Its receipt has the path under which it was sent."""
    bed.write("old/x", b"content")
    bed.upload("old/x")
    bed.completed.write_receipts(bed.files, ["old/x"])
    bed.tick()
    (bed.folder / "old").rename(bed.folder / "new")
    grown(bed.folder / "new/x.completed")
    bed = restarted(bed)
    bed.settle()
    assert bed.names() == []
    assert [one["path"] for one in bed.completed.receipts.read("run")] == ["new/x"]
    assert bed.files.snapshot().completed == 1


@pytest.mark.parametrize("receipt", [True, False])
def test_a_session_that_drains_once_more_counts_the_file_once(bed: Bed, service: Service, receipt: bool) -> None:
    """What its new run counts does not fall below what was sent."""
    for name in "x", "y":
        bed.write(name, b"half")
    service.stop("run", drain=True)
    for _ in range(2):
        bed.handle(bed.backlog.small.take())
    assert service.runs.wake.wait(10)
    service.reconcile()
    files = service.runs["run"].files
    if receipt:
        bed.completed.write_receipts(files, ["x", "y"])
    bed.append("x.completed", b" and the rest")
    bed.walk()
    run = service.runs["run"]
    assert run.session.state is State.DRAINING
    assert bed.names() in (["x"], ["x", "y.completed"])
    run.files.receipted = lambda found: bed.completed.receipts.among("run", found)
    assert run.discovery
    run.discovery.count_completed()
    assert run.files.snapshot().completed == 1


def test_a_file_that_is_completed_while_the_receipts_are_sealed_is_in_the_result(bed: Bed, service: Service) -> None:
    """Another process of this session may finish one late: the folder is looked at once more."""
    bed.write("x", b"content")
    bed.handle(bed.backlog.small.take())
    bed.due()
    service.stop("run", drain=False)
    other = bed.again(retention=3600)

    def late(name: str) -> None:
        if SEALED in name:
            bed.store.before.clear()
            other.write("y", b"late")
            other.upload("y")

    bed.store.before["commit"] = late
    bed.walk()
    assert bed.names() == ["y.completed"]
    assert (service.records.get("run") is None, service.results.get("run")) == (False, None)
    bed.walk()
    result = service.results.get("run")
    assert result
    assert (bed.names(), result.files.sent, result.files.left_behind) == ([], 2, 0)


def test_a_file_that_is_deleted_while_the_receipts_are_sealed_is_in_the_first_result(
    bed: Bed, service: Service
) -> None:
    """No result is told that the next walk has to contradict."""
    bed.write("x", b"content")
    bed.handle(bed.backlog.small.take())
    bed.due()
    service.stop("run", drain=False)
    other = bed.again()

    def late(name: str) -> None:
        if SEALED in name:
            bed.store.before.clear()
            other.write("y", b"late")
            other.upload("y")
            other.due()

    bed.store.before["commit"] = late
    bed.walk()
    assert service.results.get("run") is None
    bed.walk()
    result = service.results.get("run")
    assert result
    assert result.files.sent == 2


def test_a_stopped_session_whose_folder_was_removed_ends_with_its_result(bed: Bed, service: Service) -> None:
    """Somebody has taken the folder away for good: what was sent is known all the same."""
    bed.write("x", b"content")
    bed.handle(bed.backlog.small.take())
    bed.due()
    service.stop("run", drain=False)
    shutil.rmtree(bed.folder)
    bed.walk()
    result = service.results.get("run")
    assert result
    assert (result.files.sent, result.files.left_behind, service.records.get("run")) == (1, 0, None)


def test_no_session_ends_by_a_folder_that_went_with_its_share(bed: Bed, service: Service, tmp_path: Path) -> None:
    """Between the walk and the result another share may be mounted: gone is not empty (I6)."""
    service.stop("run", drain=False)
    sealed = bed.completed.seal(service.runs["run"].session)
    bed.root.rename(tmp_path / "away")
    shutil.rmtree(tmp_path / "away/run")
    (bed.root / OWN / "sessions").mkdir(parents=True)
    shutil.copy(tmp_path / "away" / OWN / "sessions/run.json", bed.root / OWN / "sessions/run.json")
    with pytest.raises(ShareLost):
        service.swept("run", sealed)
    assert not (bed.root / OWN / "ended").exists()


TAKEN_UP: dict[str, Callable[[Service], object]] = {
    "loop": Service.reconcile,
    "start": lambda service: service.start("run", None, None),
    "stop": lambda service: service.stop("run", drain=True),
}


@pytest.mark.parametrize("by", TAKEN_UP)
def test_receipts_are_read_once_and_without_the_lock_when_a_session_is_taken_up(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A million of them take seconds, in which starts, stops and other sessions go on."""
    bed.write("x", b"content")
    bed.handle(bed.backlog.small.take())
    bed.due()
    if by == "start":
        service.stop("run", drain=False)
    else:
        service.runs.leave(service.runs["run"])
    reads = _reads(service, monkeypatch)
    TAKEN_UP[by](service)
    assert service.runs["run"].files.snapshot().completed == 1
    assert reads == [True]


def test_receipts_are_read_without_the_lock_when_a_session_drains_once_more(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("x", b"content")
    bed.handle(bed.backlog.small.take())
    bed.due()
    bed.write("y", b"half")
    service.stop("run", drain=True)
    bed.handle(bed.backlog.small.take())
    assert service.runs.wake.wait(10)
    service.reconcile()
    bed.append("y.completed", b" and the rest")
    reads = _reads(service, monkeypatch)
    bed.walk()
    assert service.runs["run"].session.state is State.DRAINING
    assert service.runs["run"].files.snapshot().completed == 1
    assert reads
    assert all(reads)


def _reads(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each reading of journals whether another thread can have the service's lock meanwhile."""
    lines, free = Journals.lines, list[bool]()

    def read(journals: Journals, sizes: Mapping[str, int], after: tuple[str, int] = ("", 0)) -> Iterator[Line]:
        other = threading.Thread(target=lambda: free.append(_taken(service)))
        other.start()
        other.join()
        yield from lines(journals, sizes, after)

    monkeypatch.setattr(Journals, "lines", read)
    return free


def _taken(service: Service) -> bool:
    if taken := service._lock.acquire(blocking=False):
        service._lock.release()
    return taken


def snapshot(bed: Bed, service: Service) -> Snapshot:
    bed.walk()
    assert service.results.get("run") is None
    return service.runs["run"].files.snapshot(50)


def test_a_stopped_session_that_cannot_end_names_the_file_and_the_reason(bed: Bed, service: Service) -> None:
    """Not only that it waits: whoever asks for the status knows which file to deal with."""
    (bed.folder / "x.completed").write_bytes(b"somebody's own")
    service.stop("run", drain=False)
    now = snapshot(bed, service)
    assert [(one.path, "cannot be proven" in (one.error or "")) for one in now.current] == [("x.completed", True)]
    assert now.last_error
    assert (now.last_error.path, now.last_error.error) == ("x.completed", now.current[0].error)
    (bed.folder / "x.completed").unlink()
    bed.walk()
    assert service.results.get("run")


def test_a_stopped_session_with_a_folder_that_cannot_be_read_names_it(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("shut/x", b"content")
    service.stop("run", drain=False)
    scandir, shut = os.scandir, (bed.folder / "shut").stat().st_ino

    def refused(path: Any) -> Any:
        if isinstance(path, int) and os.fstat(path).st_ino == shut:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        now = snapshot(bed, service)
    assert now.last_error
    assert (now.last_error.path, "Permission denied" in now.last_error.error) == ("shut", True)
    bed.walk()
    result = service.results.get("run")
    assert result
    assert [one.path for one in result.left_behind] == ["shut/x"]
    assert "run" not in service.runs


def test_a_stopped_session_whose_record_cannot_be_written_names_the_file_that_waits_for_it(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("x", b"half")
    service.stop("run", drain=True)
    bed.handle(bed.backlog.small.take())
    assert service.runs.wake.wait(10)
    service.reconcile()
    bed.append("x.completed", b" and the rest")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(service.records, "replace", full)
        now = snapshot(bed, service)
    assert now.last_error
    assert (now.last_error.path, "No space left" in now.last_error.error) == ("x.completed", True)
    bed.walk()
    assert bed.names() == ["x"]
    assert service.runs["run"].files.snapshot().last_error is None

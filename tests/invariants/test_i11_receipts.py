"""I11: no file is deleted before its receipt is on the share's disk; and what a session's receipts become at its end."""

import errno
import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.invariants.bed import Bed
from tests.support.programs import wait_for
from uploader.errors import Overtaken, StoreAway
from uploader.sessions.service import Service
from uploader.share.journal import Journals
from uploader.share.mount import OWN
from uploader.sweep.receipts import Receipts
from uploader.web.openapi.models import SessionState

FIELDS = {
    "session", "path", "blob", "size", "crc64", "md5", "etag", "mtime", "inode", "committed", "shard", "attempts",
    "replaced",
}  # fmt: skip


def receipts(bed: Bed) -> list[dict[str, Any]]:
    return list(bed.completed.receipts.read("run"))


def journals(bed: Bed) -> list[Path]:
    return sorted((bed.root / OWN / "receipts/run").glob("*"))


def refuse(number: int) -> Callable[..., Any]:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


def test_a_receipt_says_what_became_of_the_file(bed: Bed) -> None:
    """Whoever has the receipt finds the blob, and can compare it with what was sent."""
    mtime = bed.write("a/x.bin", b"content").stat().st_mtime_ns
    bed.upload("a/x.bin")
    bed.due()
    (one,) = receipts(bed)
    assert one.keys() == FIELDS
    stored = bed.store.head("run/a/x.bin")
    assert (one["session"], one["path"], one["blob"]) == ("run", "a/x.bin", "run/a/x.bin")
    assert (one["size"], one["etag"], one["md5"]) == (7, stored.etag, stored.md5.hex())
    assert one["mtime"].endswith(f"{mtime % 10**9:09}Z")
    assert (one["shard"], one["attempts"], one["replaced"]) == (0, 1, None)


@pytest.mark.parametrize("restarted", [None, "sent", "receipt written"])
def test_what_was_replaced_stands_in_the_receipt_and_counts_once(bed: Bed, restarted: str | None) -> None:
    """Whichever process deletes the file: the blob's metadata knows it too."""
    bed.write("x", b"first")
    bed.settle()
    etag = bed.store.head("run/x").etag.strip('"')
    bed.write("x", b"second")
    bed.upload("x")
    assert (bed.files.snapshot().completed, bed.files.snapshot().replaced) == (2, 1)
    if restarted == "receipt written":
        bed.completed.write_receipts(bed.files, ["x"])
    if restarted:
        bed = bed.again()
        bed.files.count_receipts(*bed.completed.receipts.count("run"))
        bed.files.receipted = lambda files: bed.completed.receipts.among("run", files)
        bed.discovery.count_completed()
    bed.due()
    bed.walk()
    assert bed.names() == []
    (snapshot,) = bed.store.snapshots("run/x")
    before = {"etag": etag, "snapshot": snapshot}
    assert {one["size"]: one["replaced"] for one in receipts(bed)} == {5: None, 6: before}
    assert bed.completed.receipts.count("run") == (2, 11, 1)
    assert (bed.files.snapshot().completed, bed.files.snapshot().replaced) == (2, 1)


def test_a_file_that_replaced_another_and_goes_on_growing_counts_once(bed: Bed) -> None:
    bed.write("x", b"first")
    bed.settle()
    bed.write("x", b"second")
    bed.upload("x")
    bed.completed.write_receipts(bed.files, ["x"])
    bed.tick()
    bed.append("x.completed", b" and more")
    bed.due()
    assert (bed.names(), bed.files.snapshot().replaced) == (["x"], 0)
    bed.settle()
    assert bed.completed.receipts.count("run") == (2, len(b"first" + b"second and more"), 1)
    assert (bed.files.snapshot().completed, bed.files.snapshot().replaced) == (2, 1)


def test_each_receipt_is_on_the_disk_before_its_file_is_deleted(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fsync for all the files of a sweep, then the deletions."""
    for number in range(20):
        bed.write(f"{number}", b"content")
        bed.upload(f"{number}")
    steps: list[str] = []
    fsync, unlink = os.fsync, os.unlink

    def synced(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".jsonl"):
            steps.append("on disk")
            assert len(receipts(bed)) == 20
        fsync(fd)

    def deleted(name: str, **at: Any) -> None:
        steps.append("deleted")
        unlink(name, **at)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "unlink", deleted)
    bed.due()
    assert steps == ["on disk", *["deleted"] * 20]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_on_a_full_share_the_deletion_waits_visibly(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch, call: str, restarted: bool
) -> None:
    """Status says why; when there is room the file is deleted, and the error is no longer shown."""
    bed = make(sweep_interval=0.05)
    bed.write("x", b"content")
    bed.upload("x")
    bed = bed.again(sweep_interval=0.05) if restarted else bed
    sweep = bed.walk if restarted else bed.due
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse(errno.ENOSPC))
        sweep()
    assert bed.names() == ["x.completed"]
    shown = bed.files.snapshot().last_error
    assert shown
    assert "No space left" in shown.error

    def swept() -> bool:
        sweep()
        bed.due()
        return bed.names() == []

    wait_for(swept, "the deletion")
    assert [one["path"] for one in receipts(bed)] == ["x"]
    assert bed.files.snapshot().last_error is None


@pytest.mark.parametrize("end", [20, -1])
def test_nothing_is_added_to_a_torn_line(bed: Bed, monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    """A share that fills up in the middle of a line costs no other line; without its end a line is not whole."""
    write = os.write

    def torn(fd: int, data: bytes) -> int:
        write(fd, bytes(data)[:end])
        raise OSError(errno.ENOSPC, "No space left on device")

    bed.write("x", b"content")
    bed.upload("x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", torn)
        bed.due()
    assert receipts(bed) == []
    bed.due()
    assert [one["path"] for one in receipts(bed)] == ["x"]
    assert len(journals(bed)) == 2


def test_killed_between_receipt_and_deletion_the_file_has_one_receipt_and_counts_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("x", b"content")
    bed.upload("x")
    with monkeypatch.context() as patch:
        patch.setattr(bed.completed, "delete", refuse(errno.EIO))
        patch.setattr(bed.share, "judge", lambda _: None)
        bed.due()
    assert bed.names() == ["x.completed"]
    after = bed.again()
    after.files.count_receipts(*after.completed.receipts.count("run"))
    after.files.receipted = lambda files: after.completed.receipts.among("run", files)
    after.discovery.count_completed()
    assert after.files.snapshot().completed == 1
    after.walk()
    assert after.names() == []
    assert [one["path"] for one in receipts(after)] == ["x"]
    assert after.files.snapshot().completed == 1


def test_a_deletion_that_fails_writes_no_second_line(make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put off and tried again, for hours perhaps; the journal does not grow by that."""
    bed = make(sweep_interval=0.05)
    bed.write("x", b"content")
    bed.upload("x")
    with monkeypatch.context() as patch:
        patch.setattr(bed.completed, "delete", refuse(errno.EACCES))
        patch.setattr(bed.share, "judge", lambda _: None)
        bed.due()

    def swept() -> bool:
        bed.due()
        return bed.names() == []

    wait_for(swept, "the deletion")
    assert [path.read_bytes().count(b"\n") for path in journals(bed)] == [1]


def test_two_lines_about_one_file_count_as_one(bed: Bed) -> None:
    """Two owners of a session may both write one."""
    bed.write("x", b"content")
    bed.upload("x")
    proof = bed.completed.proofs.get(("run", "x"))
    assert proof
    for _ in range(2):
        Receipts(bed.share, 0).write("run", [proof.receipt])
    assert len(journals(bed)) == 2
    assert len(receipts(bed)) == 1
    assert bed.completed.receipts.count("run") == (1, 7, 0)


def test_a_file_that_goes_on_growing_has_the_receipt_of_its_last_content(bed: Bed) -> None:
    """The line of what was not deleted counts no more."""
    bed.write("x", b"half")
    bed.upload("x")
    bed.completed.write_receipts(bed.files, ["x"])
    bed.tick()
    bed.append("x.completed", b" and the rest")
    bed.due()
    assert bed.names() == ["x"]
    assert receipts(bed) == []
    bed.settle()
    assert bed.names() == []
    (one,) = receipts(bed)
    assert one["size"] == len(b"half and the rest")
    assert bed.files.snapshot().completed == 1


def test_the_file_that_has_to_make_room_has_a_receipt_too(bed: Bed) -> None:
    """A worker deletes it, not the sweeper."""
    bed.write("x", b"first")
    bed.upload("x")
    bed.write("x", b"second")
    bed.upload("x")
    assert [one["size"] for one in receipts(bed)] == [5]
    bed.due()
    assert sorted(one["size"] for one in receipts(bed)) == [5, 6]


def test_what_lies_among_the_journals_is_read_strictly_and_leniently(bed: Bed) -> None:
    """A pipe, a link, a folder or somebody's file there hangs nothing; a line that is no receipt is passed over."""
    bed.write("x", b"content")
    bed.upload("x")
    bed.due()
    folder = bed.root / OWN / "receipts/run"
    os.mkfifo(folder / f"0-{'a' * 16}.jsonl")
    (folder / f"0-{'b' * 16}.jsonl").symlink_to("/dev/zero")
    (folder / f"0-{'c' * 16}.jsonl").mkdir()
    lines = b'{"path": 1}\nnonsense\n[1]\n' + b"x" * 200_000 + b'\n{"path":"torn"'
    (folder / f"0-{'d' * 16}.jsonl").write_bytes(lines)
    (folder / "other").write_bytes(b"other")
    assert [one["path"] for one in receipts(bed)] == ["x"]


def test_at_the_end_all_receipts_become_one_blob(bed: Bed, service: Service) -> None:
    """Verified before the journals go; the result says where it is."""
    run = service.runs["run"]
    for name in ("a/x", "y"):
        bed.write(name, name.encode())
    (bed.folder / "left.tmp").write_bytes(b"")
    _until_empty(bed, service)
    service.stop("run", drain=False)
    bed.write("late", b"late")
    bed.walk()
    result = service.results.get("run")
    assert result
    assert result.receipts == f"run/.receipts/{run.session.started_at}.jsonl.gz"
    lines = gzip.decompress(bed.store.content(result.receipts)).splitlines()
    assert sorted(orjson.loads(line)["path"] for line in lines) == ["a/x", "y"]
    assert (result.files.sent, result.bytes, result.files.left_behind) == (2, 4, 1)
    assert [(one.path, one.reason) for one in result.left_behind] == [
        ("late", "the session was stopped before it was sent")
    ]
    assert journals(bed) == []
    (ended,) = service.status("run").sessions
    assert ended.state is SessionState.ENDED
    assert service.stop("run", drain=True).state is SessionState.ENDED


class Killed(BaseException):
    """The death of the process."""


@pytest.mark.parametrize("at", ["journals", "record"])
def test_killed_at_its_end_a_session_keeps_the_result_that_knows_most(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Whoever comes next finds the journals, or the result: without journals it would be one of nothing sent."""
    bed.write("x", b"content")
    _until_empty(bed, service)
    service.stop("run", drain=False)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if at == "journals":
            patch.setattr(bed.completed.receipts, "forget", killed)
        else:
            patch.setattr(service.runs, "forget", killed)
        with pytest.raises(Killed):
            bed.walk()
    before = service.results.get("run")
    assert (len(journals(bed)), service.records.get("run") is None) == (1 if at == "journals" else 0, False)
    bed.walk()
    assert (journals(bed), service.records.get("run")) == ([], None)
    result = service.results.get("run")
    assert before
    assert result
    assert (result.files, result.bytes, result.receipts) == (before.files, before.bytes, before.receipts)
    assert (result.files.sent, result.bytes) == (1, 7)


def _until_empty(bed: Bed, service: Service) -> None:
    """Send and sweep all that is there, as the threads of a shard do."""

    files = service.runs["run"].files

    def empty() -> bool:
        for lane in (bed.backlog.small, bed.backlog.large):
            while lane.waits(files):
                bed.handle(lane.take())
        bed.due()
        return not [name for name in bed.names() if not name.endswith(".tmp")]

    wait_for(empty, "the files to be sent")


def test_a_store_that_is_away_keeps_the_session_until_its_receipts_are_there(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("x", b"content")
    _until_empty(bed, service)
    service.stop("run", drain=False)

    def away(*_: object) -> None:
        raise StoreAway("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(bed.store, "commit", away)
        bed.walk()
    assert service.records.get("run")
    assert len(journals(bed)) == 1
    (shown,) = service.status("run").sessions
    assert shown.last_error
    assert "the receipts are not in the store yet" in shown.last_error.error
    bed.walk()
    assert service.records.get("run") is None
    assert journals(bed) == []


def test_receipts_that_are_not_in_the_store_are_not_removed(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else was first under their blob's name: it is looked at before the journals go."""
    bed.write("x", b"content")
    _until_empty(bed, service)
    service.stop("run", drain=False)

    def overtaken(*_: object) -> None:
        raise Overtaken("another writer was first")

    with monkeypatch.context() as patch:
        patch.setattr(bed.store, "commit", overtaken)
        bed.walk()
    assert service.records.get("run")
    assert len(journals(bed)) == 1


def test_journals_that_grew_while_they_were_sealed_stay(bed: Bed, service: Service) -> None:
    """A second process of this shard may still delete files: its receipts are in the blob of the next walk."""
    service.stop("run", drain=False)
    sealed = bed.completed.seal(service.runs["run"].session)
    bed.write("x", b"content")
    other = bed.again()
    other.upload("x")
    other.due()
    service.swept("run", sealed)
    assert service.records.get("run")
    assert [one["path"] for one in receipts(bed)] == ["x"]
    bed.walk()
    result = service.results.get("run")
    assert result
    assert result.files.sent == 1


def test_a_million_receipts_take_no_more_memory_than_ten_thousand(bed: Bed) -> None:
    """They are read line by line; what is held does not grow with their number."""
    counted(bed, 10)
    assert counted(bed, 200_000) < counted(bed, 10_000) + 4 * 1024 * 1024


def test_of_receipts_that_are_there_twice_little_is_held(bed: Bed) -> None:
    """Each process that is killed during a sweep may leave thousands of them."""
    assert counted(bed, 20_000, journals=2) < counted(bed, 20_001) + 20_000 * 150


def counted(bed: Bed, count: int, journals: int = 1) -> int:
    """Count so many receipts, which are in each of these journals; return the most bytes that were held for that."""
    line = '{"session":"run","path":"%d","inode":%d,"mtime":"2026-03-01T12:00:00.000000000Z","size":1,"more":"%s"}\n'
    folder = bed.root / OWN / f"receipts/s{count}"
    folder.mkdir(parents=True)
    for journal in range(journals):
        with (folder / f"{journal}-{'a' * 16}.jsonl").open("w") as file:
            file.writelines(line % (number, number, "x" * 300) for number in range(count))
    tracemalloc.start()
    assert Receipts(bed.share, 0).count(f"s{count}") == (count, count, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_journal_belongs_to_one_process(bed: Bed) -> None:
    """Over NFS two appends to one file may overwrite each other."""
    one, other = (Journals(bed.share, "run", 0) for _ in range(2))
    for number in range(3):
        one.append(b"one %d\n" % number)
        other.append(b"other %d\n" % number)
    assert sorted(path.read_bytes() for path in journals(bed)) == [
        b"one 0\none 1\none 2\n",
        b"other 0\nother 1\nother 2\n",
    ]

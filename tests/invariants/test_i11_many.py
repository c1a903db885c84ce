"""I11 beyond what is remembered: files whose proofs have been dropped, and files that only their etag tells apart."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import orjson
import pytest

from tests.invariants.bed import Bed
from tests.invariants.test_i11_counts import counted, restarted
from uploader.backlog import inventory
from uploader.backlog.inventory import Inventory
from uploader.errors import InTheWay
from uploader.share.claim import Claim
from uploader.share.mount import OWN
from uploader.share.paths import opened
from uploader.sweep import proofs


def paths(bed: Bed) -> list[str]:
    return sorted(one["path"] for one in bed.completed.receipts.read("run"))


def test_files_beyond_those_that_are_remembered_have_receipts_and_count_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is asked about them again; they are no files of an earlier run."""
    monkeypatch.setattr(proofs, "MAX_PROOFS", 1)
    for name in "abc":
        bed.write(name, b"content")
        bed.upload(name)
    assert counted(bed) == (3, 21)
    for _ in range(4):
        bed.due()
        bed.walk()
    assert (bed.names(), paths(bed), counted(bed)) == ([], ["a", "b", "c"], (3, 21))


def test_a_file_that_was_forgotten_while_its_receipt_was_due_is_not_deleted(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's file takes its place in the memory, just when it is to make room for a file of its name."""
    monkeypatch.setattr(proofs, "MAX_PROOFS", 1)
    bed.write("x", b"content")
    bed.upload("x")
    write = bed.completed.write_receipts

    def late(files: Inventory, which: Iterable[str]) -> None:
        proof = bed.completed.proofs.get(("run", "x"))
        assert proof
        bed.completed.proofs.add(("run", "other"), proof, 60)
        write(files, which)

    monkeypatch.setattr(bed.completed, "write_receipts", late)
    with opened(bed.share.fd, "run") as at, pytest.raises(InTheWay):
        bed.completed.clear(bed.files, "x", Claim(at, "x", lambda: None))
    assert (bed.names(), paths(bed)) == (["x.completed"], [])


@pytest.mark.parametrize("killed", [False, True])
def test_more_files_of_a_dead_process_than_are_remembered_count_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Each counts at the latest when it is deleted; by its receipt where the dead process has written that."""
    monkeypatch.setattr(inventory, "MAX_KEPT", 1)
    for name in "abc":
        bed.write(name, b"content")
        bed.upload(name)
    if killed:
        bed.completed.write_receipts(bed.files, "abc")
    bed = restarted(bed)
    for _ in range(3):
        bed.walk()
    assert (bed.names(), paths(bed), counted(bed)) == ([], ["a", "b", "c"], (3, 21))


@pytest.mark.parametrize(("sweep", "receipts"), [("due", ["x", "x"]), ("walk", ["x"])])
def test_a_new_file_of_the_name_of_one_that_has_vanished_counts_once(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, sweep: str, receipts: list[str]
) -> None:
    """Somebody deletes x.completed while the sweeper looks at it, and a worker completes the next x at once."""
    bed.write("x", b"content")
    bed.upload("x")
    reserve = bed.files.reserve

    @contextmanager
    def followed(path: str) -> Iterator[bool]:
        monkeypatch.setattr(bed.files, "reserve", reserve)
        (bed.folder / "x.completed").unlink()
        try:
            with reserve(path) as mine:
                yield mine
        finally:
            bed.write("x", b"content")
            bed.upload("x")

    monkeypatch.setattr(bed.files, "reserve", followed)
    getattr(bed, sweep)()
    bed.due()
    bed.walk()
    assert (bed.names(), paths(bed), counted(bed)) == ([], receipts, (2, 14))


def before_it(bed: Bed, content: bytes) -> None:
    """Have x deleted, whose receipt has the mtime and the inode of the x.completed that follows."""
    mtime = bed.write("x", b"content").stat().st_mtime_ns
    bed.settle()
    (one,) = bed.completed.receipts.read("run")
    now = bed.write("x", content).stat()
    (journal,) = (bed.root / OWN / "receipts/run").iterdir()
    journal.write_bytes(orjson.dumps(one | {"inode": now.st_ino}, option=orjson.OPT_APPEND_NEWLINE))
    os.utime(bed.folder / "x", ns=(now.st_atime_ns, mtime))


@pytest.mark.parametrize(("content", "killed"), [(b"CONTENT", False), (b"CONTENT", True), (b"content", False)])
def test_a_file_with_the_inode_and_the_time_of_the_one_before_has_a_receipt_of_its_own(
    bed: Bed, content: bytes, killed: bool
) -> None:
    """The file system gives an inode again at once, and cp -p or rsync -t an mtime: each delivery has its own etag."""
    before_it(bed, content)
    bed.upload("x")
    bed = restarted(bed) if killed else bed
    bed.due()
    bed.walk()
    bed.due()
    assert (bed.names(), paths(bed)) == ([], ["x", "x"])
    assert bed.completed.receipts.count("run") == (2, 14, int(content != b"content"))
    assert counted(bed) == (2, 14)

"""I1: a source is deleted only when its content is proven to be in the store, and has not changed since."""

import logging
import os
from collections.abc import Callable

import pytest

from tests.invariants.bed import BLOCK, NFS, Bed
from tests.support.clock import Clock
from uploader.blob.checksum import crc64
from uploader.blob.store import Label, Stored
from uploader.errors import StoreAway, StoreRefused
from uploader.share.handle import Handle
from uploader.sweep import proofs, verdict

SIZES = [0, 10, BLOCK, 2 * BLOCK + 1]


def blob(bed: Bed, path: str, content: bytes) -> None:
    """Put a blob as another process would have."""
    bed.store.put(f"run/{path}", content, Label(len(content), crc64(content), None, 0, None, 0, "run", "x/y"), None)


@pytest.mark.parametrize("size", SIZES)
def test_what_this_process_saw_committed_is_deleted_without_asking(bed: Bed, size: int) -> None:
    """The process's own proof is enough: the sweep of a fresh upload costs no request to the store."""
    content = os.urandom(size)
    bed.write("a/x.bin", content)
    bed.upload("a/x.bin")
    assert bed.names() == ["a/x.bin.completed"]
    bed.store.before["head"] = lambda _: pytest.fail("it asked")
    bed.due()
    assert bed.names() == []
    assert bed.content("a/x.bin") == content


@pytest.mark.parametrize("size", SIZES)
def test_what_an_earlier_process_completed_is_compared_first(bed: Bed, size: int) -> None:
    """A process that did not commit the blob itself compares the file with it before it deletes the file."""
    content = os.urandom(size)
    bed.write("x.bin.completed", content)
    blob(bed, "x.bin", content)
    bed.walk()
    assert bed.names() == []


@pytest.mark.parametrize("stored", [None, b"", b"other", b"contenT"])
def test_what_the_store_does_not_have_is_kept_counted_and_logged_once(
    bed: Bed, stored: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A file whose blob is missing or differs is never deleted, and the operator is told of it once."""
    bed.write("x.bin.completed", b"content")
    if stored is not None:
        blob(bed, "x.bin", stored)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            bed.walk()
    assert bed.names() == ["x.bin.completed"]
    assert list(bed.files.kept()) == ["x.bin.completed"]
    assert [record.message for record in caplog.records].count("file.unproven") == 1


def test_a_blob_of_another_tool_is_compared_by_its_md5(bed: Bed) -> None:
    """Without our CRC64 in its metadata a blob is proof only when the service's own MD5 fits the file."""
    bed.write("same.completed", b"content")
    bed.write("other.completed", b"content")
    for path, content in (("same", b"content"), ("other", b"contenT")):
        blob(bed, path, content)
        bed.store._blobs[f"run/{path}"].metadata = {}  # no CRC64 in the metadata: only the service's MD5 is left
    bed.walk()
    assert bed.names() == ["other.completed"]


def test_a_store_that_is_away_proves_nothing(bed: Bed) -> None:
    """While the store cannot be asked, the file is kept, and not shown as unproven: the next walk asks again."""
    bed.write("x.completed", b"content")

    def away(_: str) -> None:
        raise StoreAway("not now")

    bed.store.before["head"] = away
    bed.walk()
    assert bed.names() == ["x.completed"]
    assert not bed.files.kept(), "that passes by itself"


def test_a_store_that_refuses_to_answer_is_told_with_the_file(bed: Bed) -> None:
    """Else the file would stay for ever, and keep its session from ending, without a word."""
    bed.write("x", b"content")
    bed.upload("x")
    after = bed.again()

    def refuse(_: str) -> None:
        raise StoreRefused("409 BlobUsesCustomerSpecifiedEncryption")

    after.store.before["head"] = refuse
    after.walk()
    assert after.names() == ["x.completed"]
    assert after.files.kept() == {"x.completed": "the file cannot be deleted: 409 BlobUsesCustomerSpecifiedEncryption"}
    after.store.before.clear()
    after.walk()
    assert (after.names(), after.files.kept()) == ([], {})
    after.close()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("size", [10, 2 * BLOCK])
def test_what_is_written_after_the_commit_goes_back_and_is_sent_again(
    make: Callable[..., Bed], size: int, restarted: bool
) -> None:
    """A slow writer, of whom nobody knew when the last block had gone."""
    bed = make()
    content = os.urandom(size)
    bed.write("x.bin", content)
    bed.upload("x.bin")
    bed.append("x.bin.completed", b" and more")
    bed = make(bed) if restarted else bed
    (bed.walk if restarted else bed.due)()
    assert bed.names() == ["x.bin"]
    bed.settle()
    assert bed.names() == []
    assert bed.content("x.bin") == content + b" and more"


def test_the_last_look_is_after_the_comparison(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is overwritten with the same length while the sweeper compares it is sent again, not deleted."""
    path = bed.write("x.completed", b"content")
    blob(bed, "x", b"content")
    matches = verdict._matching

    def slow(file: Handle, stored: Stored) -> int | None:
        same = matches(file, stored)
        path.write_bytes(b"CONTENT")
        return same

    monkeypatch.setattr(verdict, "_matching", slow)
    bed.walk()
    assert bed.names() == ["x"]


def test_the_last_look_asks_the_server(make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    """A chmod to the same mode gives up a delegation, which would blind us to a writer on this machine."""
    bed = make(tells=NFS)
    bed.write("x", b"content")
    bed.upload("x")
    path, unlink = bed.folder / "x.completed", os.unlink
    before = path.stat()
    bed.tick()
    seen: list[os.stat_result] = []

    def deleted(name: str, *, dir_fd: int) -> None:
        seen.append(path.stat())
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", deleted)
    bed.due()
    assert bed.names() == []
    (last,) = seen
    assert last.st_ctime_ns > before.st_ctime_ns
    assert (last.st_mtime_ns, last.st_mode) == (before.st_mtime_ns, before.st_mode)


def test_a_changed_file_goes_back_where_links_are_refused(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.protected_hardlinks: nobody may link a file that he neither owns nor may write."""
    bed.write("x", b"content")
    bed.upload("x")
    bed.append("x.completed", b" and more")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    bed.due()
    assert bed.names() == ["x.processing"]
    bed.settle()
    assert bed.names() == []
    assert bed.content("x") == b"content and more"


def test_a_name_that_comes_again_has_its_own_retention(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second file of a name waits its own retention: the due date of the first must not delete it early."""
    bed = make(retention=60)
    clock = Clock()
    monkeypatch.setattr(proofs, "time", clock)
    bed.write("x", b"first")
    bed.upload("x")
    clock.now += 50
    bed.write("x", b"second")
    bed.upload("x")
    clock.now += 50
    assert bed.completed.proofs.due(clock.now) == []
    clock.now += 10
    assert bed.completed.proofs.due(clock.now) == [("run", "x")]


def test_what_is_no_longer_remembered_is_taken_over_by_the_walk(bed: Bed) -> None:
    """Proofs are bounded: a file whose proof was forgotten is compared and deleted by the next walk."""
    bed.write("x", b"content")
    bed.upload("x")
    bed.completed.proofs.forget(("run", "x"))
    bed.walk()
    assert bed.names() == []


def test_a_name_that_no_blob_can_have_is_kept_and_ends_nothing(bed: Bed) -> None:
    """A stranger's `.completed` file under a name no blob can bear is kept and shown, and the sweeper goes on."""
    path = os.fsencode(bed.folder) + b"/\xff.completed"
    with open(path, "wb"):
        pass
    for name in ("a\x01b.completed", "dot..completed", "y" * 240 + ".completed"):
        bed.write(name, b"")
    bed.walk()
    assert len(bed.names()) == 4
    assert len(bed.files.kept()) == 4

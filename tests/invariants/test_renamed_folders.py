"""A folder that is renamed within the retention: what was sent is proven under the name that it was sent as."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.invariants.bed import NFS, Bed
from uploader.blob.checksum import crc64
from uploader.blob.store import Label, Stored
from uploader.errors import ListRefused, StoreRefused
from uploader.share.claim import Claim
from uploader.sweep import origins


def test_completed_files_of_a_renamed_folder_are_deleted(bed: Bed) -> None:
    """They are in the store, under the folder's old name: to call them unproven for ever would not be true."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.walk()
    assert (bed.names(), bed.files.kept(), bed.store.writes) == ([], {}, ["run/old/x"])


def test_an_upload_goes_on_while_its_folder_is_renamed(bed: Bed) -> None:
    """The folder is held, not its name; the file is swept under its new path."""
    bed.write("old/x", b"x")
    bed.store.before["put"] = lambda _: (bed.folder / "old").rename(bed.folder / "new")
    bed.upload("old/x")
    assert bed.names() == ["new/x.completed"]
    bed.due()
    bed.walk()
    assert (bed.names(), bed.content("old/x")) == ([], b"x")


def test_another_file_in_the_renamed_folder_is_no_proof(bed: Bed) -> None:
    """A marker that somebody made is kept, and so is a file that was written to after its folder was renamed."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    (bed.folder / "new/y.completed").write_bytes(b"y")
    bed.append("new/x.completed", b"more")
    bed.walk()
    assert bed.names() == ["new/x", "new/y.completed"]
    assert list(bed.files.kept()) == ["new/y.completed"]


def _receipts(bed: Bed) -> list[tuple[str, str]]:
    return sorted((one["path"], one["blob"]) for one in bed.completed.receipts.read("run"))


def test_the_receipt_names_the_path_under_which_the_file_was_sent(bed: Bed) -> None:
    """That is where its blob is."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.due()
    bed.walk()
    assert (bed.names(), _receipts(bed)) == ([], [("old/x", "run/old/x")])
    assert bed.files.snapshot().completed == 1


def test_folders_that_exchange_their_names_lose_no_proof(bed: Bed) -> None:
    for folder in "a", "b", "c":
        bed.write(f"{folder}/x", folder.encode())
        bed.upload(f"{folder}/x")
    for old, new in ("a", "t"), ("b", "a"), ("c", "b"), ("t", "c"):
        (bed.folder / old).rename(bed.folder / new)
    bed.walk()
    assert (bed.names(), bed.files.kept()) == ([], {})
    assert _receipts(bed) == [(f"{one}/x", f"run/{one}/x") for one in "abc"]


@pytest.mark.parametrize("content", [b"second", b"first"])
def test_a_folder_that_is_made_again_under_its_old_name_has_its_files_beside_the_moved_ones(
    bed: Bed, content: bytes
) -> None:
    """The first file is in the store, as a snapshot where the second has other content: both are deleted."""
    bed.write("old/x", b"first")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.write("old/x", content)
    bed.upload("old/x")
    bed.walk()
    bed.due()
    assert (bed.names(), bed.files.kept(), bed.content("old/x")) == ([], {}, content)
    assert _receipts(bed) == [("old/x", "run/old/x")] * 2
    assert len(bed.store.snapshots("run/old/x")) == (content != b"first")
    assert bed.files.snapshot().completed == 2


def test_a_moved_file_whose_blob_was_replaced_on_purpose_is_kept(make: Callable[..., Bed]) -> None:
    """It lies on the share alone by then."""
    bed = make(on_conflict="replace")
    bed.write("old/x", b"first")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.write("old/x", b"second")
    bed.upload("old/x")
    bed.walk()
    bed.due()
    assert (bed.names(), list(bed.files.kept())) == (["new/x.completed"], ["new/x.completed"])


def test_a_moved_file_that_goes_on_growing_is_not_counted_by_its_first_receipt(bed: Bed) -> None:
    """It is sent again under its new name, where it has its own."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    bed.completed.write_receipts(bed.files, ["old/x"])
    (bed.folder / "old").rename(bed.folder / "new")
    bed.tick()
    bed.append("new/x.completed", b"more")
    bed.walk()
    assert (bed.names(), _receipts(bed), bed.files.snapshot().completed) == (["new/x"], [], 0)
    bed.settle()
    assert (bed.names(), _receipts(bed), bed.files.snapshot().completed) == ([], [("new/x", "run/new/x")], 1)


def test_a_renamed_folder_holds_up_no_other_deletion(bed: Bed) -> None:
    """Its files wait for a walk, for minutes perhaps; all others go when they are due."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.due()
    bed.write("y", b"y")
    bed.upload("y")
    bed.sweeper.collect_due(time.monotonic())
    assert bed.names() == ["new/x.completed"]


def test_a_file_that_is_deleted_under_its_new_path_is_forgotten(bed: Bed) -> None:
    """Otherwise it would be looked for under its old path as long as the session lives."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.walk()
    assert bed.completed.proofs.due(float("inf")) == []


def test_after_a_restart_they_are_proven_by_the_blobs_that_were_made_of_them(make: Callable[..., Bed]) -> None:
    """Each blob names the file it was made of: its content is compared, and its receipt has the name it was sent as."""
    bed = make()
    for path in "old/x", "old/deep/y", "z":
        bed.write(path, path.encode())
        bed.upload(path)
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)
    bed.discovery.count_completed()
    bed.walk()
    assert (bed.names(), bed.files.kept(), len(bed.store.writes)) == ([], {}, 3)
    assert _receipts(bed) == [(path, f"run/{path}") for path in ("old/deep/y", "old/x", "z")]
    assert bed.files.snapshot().completed == 3


def test_after_a_restart_folders_that_exchanged_their_names_are_proven(make: Callable[..., Bed]) -> None:
    """There is a blob of each name, but of the other file."""
    bed = make()
    for folder in "a", "b":
        bed.write(f"{folder}/x", folder.encode())
        bed.upload(f"{folder}/x")
    for old, new in ("a", "t"), ("b", "a"), ("t", "b"):
        (bed.folder / old).rename(bed.folder / new)
    bed = make(bed)
    bed.walk()
    assert (bed.names(), bed.files.kept()) == ([], {})
    assert _receipts(bed) == [("a/x", "run/a/x"), ("b/x", "run/b/x")]


@pytest.mark.parametrize("births", [True, False])
def test_after_a_restart_a_moved_file_that_went_on_growing_is_sent_again(
    make: Callable[..., Bed], births: bool
) -> None:
    """It is known by its birth or, where that is not told, by its beginning."""
    bed = make(tells=None if births else NFS)
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.append("new/x.completed", b"more")
    bed = make(bed)
    bed.settle()
    assert (bed.names(), bed.files.kept(), bed.content("new/x")) == ([], {}, b"xmore")


@pytest.mark.parametrize("births", [True, False])
def test_after_a_restart_another_file_in_the_renamed_folder_is_kept(make: Callable[..., Bed], births: bool) -> None:
    """With an inode that the file system gives again, and content of the same length."""
    bed = make(tells=None if births else NFS)
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    there = bed.store.head("run/old/x")
    bed.tick()
    (bed.folder / "new/y.completed").write_bytes(b"y")
    inode = (bed.folder / "new/y.completed").stat().st_ino
    bed.store.annotate("run/old/x", {**there.metadata, "inode": str(inode)}, there.etag)
    bed = make(bed)
    bed.walk()
    assert bed.names() == ["new/x.completed", "new/y.completed"]
    assert all("nor one of another name that was made of this file" in why for why in bed.files.kept().values())


def test_without_birth_times_an_empty_blob_of_another_name_tells_nothing(make: Callable[..., Bed]) -> None:
    """Its beginning is that of every file: what lies there is kept, and shown."""
    bed = make(tells=NFS)
    bed.write("old/x", b"")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed.append("new/x.completed", b"somebody's own")
    bed = make(bed)
    bed.walk()
    assert (bed.names(), list(bed.files.kept())) == (["new/x.completed"], ["new/x.completed"])


def test_a_blob_that_has_changed_since_it_was_listed_proves_nothing(make: Callable[..., Bed]) -> None:
    bed = make()
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)

    def replaced(name: str) -> None:
        if name == "run/old/x":
            bed.store.before.clear()
            label = Label(1, crc64(b"o"), None, 1, None, 0, "run", "")
            bed.store.put(name, b"o", label, bed.store.head(name).etag)

    bed.store.before["head"] = replaced
    bed.walk()
    assert (bed.folder / "new" / bed.names()[0].removeprefix("new/")).read_bytes() == b"x"


@pytest.mark.parametrize("receipted", [True, False])
def test_killed_between_receipt_and_deletion_a_moved_file_has_one_receipt_and_counts_once(
    make: Callable[..., Bed], receipted: bool
) -> None:
    bed = make()
    bed.write("old/x", b"x")
    bed.upload("old/x")
    if receipted:
        bed.completed.write_receipts(bed.files, ["old/x"])
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)
    bed.files.count_receipts(*bed.completed.receipts.count("run"))
    bed.discovery.count_completed()
    bed.walk()
    assert (bed.names(), _receipts(bed), bed.files.snapshot().completed) == ([], [("old/x", "run/old/x")], 1)
    assert sum(journal.stat().st_size > 0 for journal in (bed.root / ".nfs-watch/receipts/run").iterdir()) == 1


@pytest.mark.parametrize("error", [ListRefused("no permission"), StoreRefused("400 no such list")])
def test_where_the_blobs_cannot_be_listed_the_status_says_so_and_what_to_do(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch, error: StoreRefused
) -> None:
    bed = make()
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)

    def refused(_: str) -> Iterator[tuple[str, Stored]]:
        raise error

    monkeypatch.setattr(bed.store, "below", refused)
    bed.walk()
    (reason,) = bed.files.kept().values()
    assert f"cannot be listed ({error})" in reason
    (bed.folder / "new/x.completed").rename(bed.folder / "new/x")
    bed.settle()
    assert (bed.names(), bed.content("new/x"), bed.files.kept()) == ([], b"x", {})


def test_the_blobs_are_listed_once_for_many_files(make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    """And never for files that are proven under their own names."""
    bed = make()
    for number in range(5):
        bed.write(f"old/{number}", b"%d" % number)
        bed.upload(f"old/{number}")
    bed.write("y", b"y")
    bed.upload("y")
    lists: list[str] = []
    below = bed.store.below

    def listed(prefix: str) -> Iterator[tuple[str, Stored]]:
        lists.append(prefix)
        return below(prefix)  # type: ignore[no-any-return]

    monkeypatch.setattr(bed.store, "below", listed)
    again = make(bed, retention=3600)
    folder = os.open(again.folder, os.O_PATH)
    again.completed.judge(again.files, "y", Claim(folder, "y", lambda: None))
    os.close(folder)
    assert lists == []
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)
    bed.walk()
    assert (bed.names(), lists) == ([], ["run/"])


def test_of_more_blobs_than_are_remembered_the_status_says_how_many_were_looked_at(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "MAX_ORIGINS", 2)
    bed = make()
    for number in range(3):
        bed.write(f"old/{number}", b"%d" % number)
        bed.upload(f"old/{number}")
    (bed.folder / "old").rename(bed.folder / "new")
    bed = make(bed)
    bed.walk()
    assert bed.names() == ["new/2.completed"]
    (reason,) = bed.files.kept().values()
    assert "among the session's first 2 blobs" in reason


def test_without_birth_times_a_marker_with_the_inode_of_another_name_is_kept(make: Callable[..., Bed]) -> None:
    """Another owner has deleted what this process remembers, and the file system gave the inode again.

    Where births are not told, this is what other content under another name with the same inode looks like.
    """
    bed = make(tells=NFS)
    bed.write("x", b"content")
    bed.upload("x")
    (bed.folder / "x.completed").write_bytes(b"somebody's own")
    (bed.folder / "x.completed").rename(bed.folder / "y.completed")
    bed.walk()
    bed.settle()
    assert (bed.names(), list(bed.files.kept()), bed.store.writes) == (["y.completed"], ["y.completed"], ["run/x"])

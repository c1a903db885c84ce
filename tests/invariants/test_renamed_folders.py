"""A folder that is renamed within the retention: what was sent is proven under the name that it was sent as."""

import time

from tests.invariants.bed import Bed


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


def test_after_a_restart_the_status_says_what_to_do(bed: Bed) -> None:
    """Nobody knows the name that it was sent as: the reason says what is missing, and how the file gets on."""
    bed.write("old/x", b"x")
    bed.upload("old/x")
    (bed.folder / "old").rename(bed.folder / "new")
    after = bed.again()
    after.walk()
    (reason,) = after.files.kept().values()
    assert "no blob of this name" in reason
    (bed.folder / "new/x.completed").rename(bed.folder / "new/x")
    after.settle()
    assert (after.names(), after.content("new/x"), after.files.kept()) == ([], b"x", {})

"""A folder that is renamed within the retention: what was sent is proven under the name that it was sent as."""

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

"""I8: nothing outside the session's folder is read, renamed or deleted."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from uploader.errors import NotEligible
from uploader.share.fingerprint import look, read


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of someone else's, with a file under each of our three names."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("secret", "claimed.processing", "done.completed"):
        (folder / name).write_bytes(b"not ours")
    return folder


def untouched(bed: Bed, outside: Path) -> None:
    for _ in range(2):
        bed.settle()
        bed.due()
        bed.give_back()
    assert sorted(path.name for path in outside.iterdir()) == ["claimed.processing", "done.completed", "secret"]
    assert {path.read_bytes() for path in outside.iterdir()} == {b"not ours"}
    assert bed.store.writes == []


def test_a_link_to_a_folder_is_not_entered(bed: Bed, outside: Path) -> None:
    """A link in a session's folder must not let us read, rename or delete files elsewhere."""
    (bed.folder / "sub").symlink_to(outside)
    (bed.folder / "sub2.processing").symlink_to(outside)
    untouched(bed, outside)


@pytest.mark.parametrize("name", ["x", "x.processing", "x.completed"])
def test_a_link_to_a_file_is_not_followed(bed: Bed, outside: Path, name: str) -> None:
    """Under each of the three names, the link stays as it is and nothing of its target is sent."""
    (bed.folder / name).symlink_to(outside / "secret")
    untouched(bed, outside)
    assert (bed.folder / name).is_symlink()


def test_a_session_whose_folder_is_a_link_has_nothing(make: Callable[..., Bed], outside: Path) -> None:
    """Scan, walk and give-back all refuse to follow it."""
    bed = make()
    bed.folder.rmdir()
    bed.folder.symlink_to(outside)
    bed.scan()
    bed.walk()
    bed.give_back()
    untouched_names = sorted(path.name for path in outside.iterdir())
    assert untouched_names == ["claimed.processing", "done.completed", "secret"]
    assert bed.store.writes == []
    assert bed.folder.is_symlink()


def test_a_folder_that_becomes_a_link_during_the_scan_is_not_entered(bed: Bed, outside: Path) -> None:
    """Between the listing and the opening: whichever of two folders is entered first replaces the other."""
    others = {"one": bed.folder / "two", "two": bed.folder / "one"}
    for folder in others.values():
        folder.mkdir()
    enter = bed.discovery._enter
    entered: list[str] = []

    def swap(path: str, folder: int) -> None:
        enter(path, folder)
        entered.append(path)
        if path and len(entered) == 2:
            others[path].rmdir()
            others[path].symlink_to(outside)

    bed.discovery._enter = swap  # type: ignore[method-assign]
    bed.scan()
    bed.work()
    assert len(entered) == 2, "the top, and the first of the two"
    assert bed.store.writes == []
    assert sorted(path.name for path in outside.iterdir()) == ["claimed.processing", "done.completed", "secret"]


def test_a_folder_that_becomes_a_link_after_its_file_was_found_is_not_entered(bed: Bed, outside: Path) -> None:
    """Neither the worker nor the sweeper follows a path that leads through a link by now."""
    bed.write("sub/done", b"not ours")
    bed.upload("sub/done")
    bed.write("sub/secret", b"content")
    item = bed.item("sub/secret")
    (bed.folder / "sub").rename(bed.folder / ".aside")
    (bed.folder / "sub").symlink_to(outside)
    bed.handle(item)
    bed.due()
    assert bed.store.writes == ["run/sub/done"]
    assert sorted(path.name for path in outside.iterdir()) == ["claimed.processing", "done.completed", "secret"]


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_sent(bed: Bed, outside: Path) -> None:
    """The file fails visibly, and no drain waits for it."""
    path = bed.write("x", b"content")
    item = bed.item("x")
    path.unlink()
    path.symlink_to(outside / "secret")
    bed.handle(item)
    assert bed.store.writes == []
    assert "symbolic link" in bed.error("x")
    assert bed.files.pending() == 0, "no drain waits for it"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe must not block the reader, and a folder or a device is not read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    top = os.open(tmp_path, os.O_PATH)
    try:
        for name in ("pipe", "folder", "link", "null"):
            with pytest.raises(NotEligible, match="not a regular file"):
                read(top, name)
            with pytest.raises(NotEligible):
                look(top, name)
        with pytest.raises(FileNotFoundError):
            read(top, "absent")
    finally:
        os.close(top)


def test_other_sessions_and_our_own_folder_are_left_alone(make: Callable[..., Bed]) -> None:
    """One session's scan, upload and sweep touch nothing outside its folder."""
    bed = make()
    (bed.root / "other").mkdir()
    (bed.root / "other/x").write_bytes(b"theirs")
    (bed.root / "loose.processing").write_bytes(b"nobody's")
    bed.write("x", b"ours")
    bed.settle()
    assert (bed.root / "other/x").read_bytes() == b"theirs"
    assert (bed.root / "loose.processing").exists()
    assert bed.store.writes == ["run/x"]

"""A drain ends when every eligible file is done, and not before."""

import pytest

from tests.invariants.bed import Bed
from uploader.discovery.readiness import Pass
from uploader.share import listings
from uploader.share.scan import Found


def test_a_name_that_comes_again_behind_the_scan_holds_the_drain(bed: Bed) -> None:
    """The scan passes the name by, as a worker has it; the second file appears before that worker is done.

    Nothing is known of the second file when the scan ends: only that a worker has finished since the scan began tells
    that another scan is needed.
    """
    bed.write("x", b"first")
    item = bed.item("x")
    bed.store.before["put"] = lambda _: bed.write("x", b"second")
    meet = bed.discovery._meet

    def passed_by(found: Found, one: Pass) -> None:
        meet(found, one)
        bed.discovery._meet = meet  # type: ignore[method-assign]
        bed.handle(item)
        del bed.store.before["put"]

    bed.discovery._meet = passed_by  # type: ignore[method-assign]
    bed.discovery.drain()
    bed.scan()
    assert bed.names() == ["x", "x.completed"]
    assert not bed.discovery.finished
    bed.settle()
    assert bed.discovery.finished
    assert bed.content("x") == b"second"


def test_an_event_that_was_lost_during_the_last_scan_holds_the_drain(bed: Bed) -> None:
    """Something happened in a folder that the scan had left already: only another scan finds out what."""
    enter = bed.discovery._enter

    def late(path: str, folder: int) -> None:
        enter(path, folder)
        bed.discovery._enter = enter  # type: ignore[method-assign]
        bed.discovery.rescan()

    bed.discovery._enter = late  # type: ignore[method-assign]
    bed.discovery.drain()
    bed.scan()
    assert not bed.discovery.finished
    bed.scan()
    assert bed.discovery.finished


def test_a_folder_that_is_moved_to_where_the_scan_has_been_holds_the_drain(bed: Bed) -> None:
    """Another client renames it: no event tells of that, and the scan finds it under neither name."""
    bed.write("a/x", b"a")
    bed.write("b/x", b"b")
    enter = bed.discovery._enter

    def entered(path: str, folder: int) -> None:
        enter(path, folder)
        if path:
            bed.discovery._enter = enter  # type: ignore[method-assign]
            (bed.folder / path / "x").unlink()
            (bed.folder / other(path)).rename(bed.folder / "c")

    def other(path: str) -> str:
        return "b" if path == "a" else "a"

    bed.discovery._enter = entered  # type: ignore[method-assign]
    _drained_after_all(bed)


def test_a_file_that_is_moved_to_where_the_scan_has_been_holds_the_drain(bed: Bed) -> None:
    bed.write("x", b"x")
    bed.write("y", b"y")
    meet = bed.discovery._meet

    def met(found: Found, one: Pass) -> None:
        bed.discovery._meet = meet  # type: ignore[method-assign]
        other = "y" if found.path == "x" else "x"
        (bed.folder / found.path).unlink()
        (bed.folder / other).rename(bed.folder / "c")
        meet(found, one)

    bed.discovery._meet = met  # type: ignore[method-assign]
    _drained_after_all(bed)


def _drained_after_all(bed: Bed) -> None:
    bed.discovery.drain()
    bed.scan()
    assert not bed.discovery.finished
    bed.settle()
    bed.scan()
    assert bed.discovery.finished
    assert len(bed.store.writes) == 1


def test_a_name_that_nobody_can_open_does_not_hold_the_drain(bed: Bed) -> None:
    """Some servers list such names for ever: what vanishes twice in the same place was not moved."""

    def meet(found: Found, one: Pass) -> None:
        del found
        one.vanish("x")

    bed.write("x", b"x")
    bed.discovery._meet = meet  # type: ignore[method-assign]
    bed.discovery.drain()
    bed.scan()
    assert not bed.discovery.finished
    bed.scan()
    assert bed.discovery.finished


@pytest.mark.parametrize("why", ["drain", "rescan"])
def test_where_folders_do_not_keep_their_times_files_are_found_all_the_same(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A drain, and a scan that an event asks for, list every folder."""
    monkeypatch.setattr(listings, "times", lambda _: (0, 0, 0, 0))
    monkeypatch.setattr(listings, "TICK", 0.0)
    bed.scan()
    bed.scan()
    bed.write("x", b"x")
    bed.scan()
    assert not bed.files.knows("x")
    getattr(bed.discovery, why)()
    bed.scan()
    assert bed.files.knows("x")
    bed.settle()
    assert bed.content("x") == b"x"

"""A drain ends when every eligible file is done, and not before."""

from tests.invariants.bed import Bed
from uploader.discovery.readiness import Pass
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

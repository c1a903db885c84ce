"""What the state machine found (tests/fuzz): sequences of steps that once lost a file, each as a plain test."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from tests.invariants.bed import BLOCK, NFS, Bed

LARGE = b"-" * (2 * BLOCK + 9)


@pytest.fixture
def pair(make: Callable[..., Bed]) -> tuple[Bed, Bed]:
    """Two owners on a share that cannot tell who has a file open."""
    one = make(tells=NFS)
    return one, make(one)


@pytest.fixture
def writer(pair: tuple[Bed, Bed]) -> Iterator[BinaryIO]:
    """A slow writer that has made "x" in place and not written yet."""
    with (pair[0].folder / "x").open("wb", buffering=0) as writer:
        yield writer


def rest(bed: Bed, content: bytes) -> None:
    """Let all come to rest in a new process; x is in the store as it was finished, and nothing is left."""
    after = bed.again()
    after.settle()
    assert after.content("x") == content
    assert after.names() == []
    after.close()


def test_both_owners_queue_an_empty_file_and_the_late_one_leaves_it_to_its_writer(
    pair: tuple[Bed, Bed], writer: BinaryIO
) -> None:
    ours, other = pair
    other.scan()
    ours.scan()
    ours.work()
    other.work()
    writer.write(b"content")
    rest(ours, b"content")


def test_the_late_owner_leaves_a_file_alone_that_was_sent_beside_one_that_changed(
    pair: tuple[Bed, Bed], writer: BinaryIO
) -> None:
    """The first owner has to give the other file back; that changes nothing for this one."""
    ours, other = pair
    other.scan()
    changing = ours.write("y", LARGE)

    def append(_: str) -> None:
        ours.store.before.clear()
        with changing.with_name("y.processing").open("ab") as more:
            more.write(b"more")

    ours.store.before["stage"] = append
    ours.scan()
    ours.work()
    assert ours.names() == ["x.completed", "y"]
    other.work()
    writer.write(b"content")
    rest(ours, b"content")
    assert ours.content("y") == LARGE + b"more"


def test_both_owners_queue_a_large_file_and_the_late_one_comes_to_it_after_a_scan_of_its_own(
    pair: tuple[Bed, Bed], writer: BinaryIO
) -> None:
    """The scan sees the completed name, and the queue still holds the plain one."""
    ours, other = pair
    writer.write(LARGE)
    ours.scan()
    other.scan()
    ours.work()
    other.scan()
    other.work()
    writer.write(b"its end")
    rest(ours, LARGE + b"its end")


def test_a_file_that_was_given_back_once_is_queued_by_both_and_sent_by_one(
    pair: tuple[Bed, Bed], writer: BinaryIO
) -> None:
    ours, other = pair
    writer.write(LARGE)

    def append(_: str) -> None:
        ours.store.before.clear()
        writer.write(b"more")

    ours.store.before["stage"] = append
    ours.scan()
    ours.work()
    assert ours.names() == ["x"]
    other.scan()
    ours.scan()
    ours.work()
    assert ours.names() == ["x.completed"]
    other.scan()
    other.work()
    writer.write(b"its end")
    rest(ours, LARGE + b"moreits end")

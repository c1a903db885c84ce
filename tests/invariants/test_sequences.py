"""Sequences of steps that once lost a file, found by the state machine in tests/fuzz, each as a plain test."""

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
    """A slow writer that has made x in place and not yet written to it."""
    with (pair[0].folder / "x").open("wb", buffering=0) as writer:
        yield writer


def rest(bed: Bed, content: bytes) -> None:
    """Let a new process finish the work: x is in the store with this content, and nothing is left on the share."""
    after = bed.again()
    after.settle()
    assert after.content("x") == content
    assert after.names() == []
    after.close()


def test_both_owners_queue_an_empty_file_and_the_late_one_leaves_it_to_its_writer(
    pair: tuple[Bed, Bed], writer: BinaryIO
) -> None:
    """What the slow writer adds after the first upload must reach the store."""
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
    """That the first owner gave another file back changes nothing for the file that it completed."""
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
    """Its scan saw the completed name while its queue still held the plain one."""
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
    """A give-back on the way does not make the late owner clear the completed file."""
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

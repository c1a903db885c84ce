"""A file, its claim and its `.completed` at once: what ends by itself, and what a person ends."""

import pytest

from tests.invariants.bed import Bed


def _three(bed: Bed, late: str) -> None:
    """Three versions of one file, of which one is written to after all were there."""
    bed.write("x", b"first")
    bed.upload("x")
    bed.write("x", b"second")
    (bed.folder / "x").rename(bed.folder / "x.processing")
    bed.write("x", b"third")
    bed.append(late, b", and more")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_claim_that_changed_between_two_versions_is_sent_and_so_are_they(bed: Bed, *, restarted: bool) -> None:
    _three(bed, "x.processing")
    last = bed.again() if restarted else bed
    last.settle()
    last.due()
    last.settle()
    assert (last.names(), last.content("x")) == ([], b"third")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_completed_file_that_changed_before_two_versions_needs_one_name(bed: Bed, *, restarted: bool) -> None:
    """No name is left that it could go back to. It is shown, nothing is lost, and ends when the plain name is free."""
    _three(bed, "x.completed")
    last = bed.again() if restarted else bed
    last.settle()
    assert last.names() == ["x", "x.completed", "x.processing"]
    assert "x is in the way" in last.files.kept()["x.completed"]
    (last.folder / "x").rename(last.folder / "y")
    last.settle()
    last.due()
    last.settle()
    assert (last.names(), last.content("x"), last.content("y")) == ([], b"second", b"third")

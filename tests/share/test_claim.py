"""A file's three names, and what a claim does when someone else was quicker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from uploader.errors import InTheWay, Vanished
from uploader.share.claim import Claim


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Claim]:
    fd = os.open(tmp_path, os.O_PATH)
    yield Claim(fd, "x", lambda: None)
    os.close(fd)


def write(folder: Path, **contents: str) -> int:
    """Write a file for each keyword (x_processing is x.processing); return the inode of the last."""
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        path.write_text(content)
    return path.stat().st_ino


def names(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_goes_through_its_three_names(tmp_path: Path, claim: Claim) -> None:
    """From arrival to completion, and back: each step renames the file and keeps its content."""
    inode = write(tmp_path, x="content")
    assert not claim.held()
    claim.take()
    assert claim.held()
    assert names(tmp_path) == {"x.processing": "content"}
    claim.complete(inode)
    assert names(tmp_path) == {"x.completed": "content"}
    claim.reopen()
    assert names(tmp_path) == {"x.processing": "content"}
    claim.give_back()
    assert names(tmp_path) == {"x": "content"}


def test_a_file_that_is_gone_cannot_be_claimed(claim: Claim) -> None:
    """The worker learns that the file has vanished and goes on to the next."""
    with pytest.raises(Vanished):
        claim.take()


def test_a_claim_whose_reply_was_lost_is_ours(tmp_path: Path, claim: Claim) -> None:
    """The NFS server renamed the file, and its client's repeated call finds the plain name gone."""
    write(tmp_path, x_processing="content")
    claim.take()
    assert names(tmp_path) == {"x.processing": "content"}


def test_a_completion_whose_reply_was_lost_is_ours(tmp_path: Path, claim: Claim) -> None:
    """A `.completed` file with our inode is our own completion."""
    claim.complete(write(tmp_path, x_completed="content"))
    assert names(tmp_path) == {"x.completed": "content"}


def test_a_completion_overwrites_no_other_file(tmp_path: Path, claim: Claim) -> None:
    """A `.completed` file with another inode is kept, and ours waits (I4)."""
    write(tmp_path, x_completed="somebody's")
    with pytest.raises(InTheWay):
        claim.complete(write(tmp_path, x_processing="ours"))
    assert names(tmp_path) == {"x.completed": "somebody's", "x.processing": "ours"}


def test_a_completion_takes_no_other_claim_for_its_own(tmp_path: Path, claim: Claim) -> None:
    """The other owner has completed and swept our claim, and claimed the name's next file (I9)."""
    inode = write(tmp_path, x_processing="ours")
    (tmp_path / "x.processing").rename(tmp_path / "elsewhere")
    write(tmp_path, x_processing="the next")
    with pytest.raises(Vanished):
        claim.complete(inode)
    assert names(tmp_path)["x.processing"] == "the next"


def test_a_completion_of_what_is_gone_is_none(tmp_path: Path, claim: Claim) -> None:
    """A claim that vanished is reported so, and is not counted as completed."""
    inode = write(tmp_path, x_processing="ours")
    (tmp_path / "x.processing").rename(tmp_path / "elsewhere")
    with pytest.raises(Vanished):
        claim.complete(inode)


@pytest.mark.parametrize("call", ["give_back", "reopen", "take_back"])
def test_nothing_is_given_back_over_another_file(tmp_path: Path, claim: Claim, call: str) -> None:
    """A new file of the name may be there already; neither it nor the claim is changed (I4)."""
    write(tmp_path, x="new", x_processing="claimed", x_completed="done")
    before = names(tmp_path)
    marked: list[None] = []
    claim = Claim(claim.folder, "x", lambda: marked.append(None))
    with pytest.raises(InTheWay):
        getattr(claim, call)()
    assert names(tmp_path) == before
    assert not marked


def test_a_give_back_that_was_killed_half_way_is_ended_by_the_next(tmp_path: Path, claim: Claim) -> None:
    """Killed between link and unlink, the file has both names; the next give-back removes the old one."""
    write(tmp_path, x="content")
    os.link(tmp_path / "x", tmp_path / "x.processing")
    claim.give_back()
    assert names(tmp_path) == {"x": "content"}


def test_who_gives_back_says_so_before_and_after(tmp_path: Path, claim: Claim) -> None:
    """The mark holds for as long as a call may take: whoever slept between link and unlink says it once more."""
    told: list[list[str]] = []
    claim = Claim(claim.folder, "x", lambda: told.append(sorted(names(tmp_path))))
    write(tmp_path, x_processing="content")
    claim.give_back()
    assert told == [["x.processing"], ["x"]]
    told.clear()
    os.link(tmp_path / "x", tmp_path / "x.processing")
    claim.finish()
    assert told == [["x", "x.processing"], ["x"]]


HALVES = [
    (("x.processing", "x"), "", "x"),
    (("x.processing", "x"), "x.completed", "x"),
    (("x.completed", "x"), "", "x"),
    (("x.completed", "x"), "x.processing", "x"),
    (("x.completed", "x.processing"), "", "x.processing"),
    (("x.completed", "x.processing"), "x", "x.processing"),
    (("x.completed", "x.processing", "x"), "", "x"),
]


@pytest.mark.parametrize(("names_of_one", "other", "stays"), HALVES)
def test_of_two_names_of_one_file_the_one_nearer_to_the_plain_name_stays(
    tmp_path: Path, claim: Claim, names_of_one: tuple[str, ...], other: str, stays: str
) -> None:
    write(tmp_path, **{names_of_one[0].replace(".", "_"): "one"})
    for name in names_of_one[1:]:
        os.link(tmp_path / names_of_one[0], tmp_path / name)
    if other:
        write(tmp_path, **{other.replace(".", "_"): "another"})
    assert claim.half_undone() == ("x.completed" in names_of_one)
    claim.finish()
    assert not claim.half_undone()
    assert names(tmp_path) == {stays: "one"} | ({other: "another"} if other else {})


def test_three_files_are_not_half_undone(tmp_path: Path, claim: Claim) -> None:
    write(tmp_path, x="new", x_processing="claimed", x_completed="done")
    assert not claim.half_undone()
    claim.finish()
    assert names(tmp_path) == {"x": "new", "x.processing": "claimed", "x.completed": "done"}


def test_a_completion_of_a_file_that_is_half_way_back_leaves_one_name(tmp_path: Path, claim: Claim) -> None:
    """rename() between two names of one file does nothing and succeeds."""
    inode = write(tmp_path, x_processing="content")
    os.link(tmp_path / "x.processing", tmp_path / "x.completed")
    claim.complete(inode)
    assert names(tmp_path) == {"x.completed": "content"}


def test_a_newer_claim_goes_back_before_an_older_file_is_taken_up_again(tmp_path: Path, claim: Claim) -> None:
    write(tmp_path, x_processing="newer", x_completed="older")
    claim.take_back()
    assert names(tmp_path) == {"x": "newer", "x.processing": "older"}


def test_a_reopen_without_links_overwrites_nothing(
    tmp_path: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel or the file system refuses links, a rename serves, but never over another claim."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    write(tmp_path, x_processing="claimed", x_completed="done")
    with pytest.raises(InTheWay):
        claim.reopen()
    assert names(tmp_path) == {"x.processing": "claimed", "x.completed": "done"}
    (tmp_path / "x.processing").unlink()
    claim.reopen()
    assert names(tmp_path) == {"x.processing": "done"}

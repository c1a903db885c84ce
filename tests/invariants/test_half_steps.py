"""A step of two calls, of which only the first was made: one file under two names. Whoever comes next ends it (I5).

docs/design.md has the table: each state that link and unlink can leave, with every other file of the name.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.invariants.bed import Bed

OLD, END = b"the old one", b", and its end"
NEW, BEFORE = b"the next of its name", b"the one before"
PLAIN, CLAIM, DONE = "x", "x.processing", "x.completed"
# The names of the file that is half-way, and where another file of the name may lie.
HALVES: dict[str, tuple[tuple[str, ...], list[str | None]]] = {
    "a claim given back": ((CLAIM, PLAIN), [None, DONE]),
    "a completion undone": ((DONE, PLAIN), [None, CLAIM]),
    "a completion undone before the next": ((DONE, CLAIM), [None, PLAIN]),
    "a completion undone, and the claim given back": ((DONE, CLAIM, PLAIN), [None]),
}
STATES = [
    pytest.param(names, other, id=f"{half}, {other}") for half, (names, where) in HALVES.items() for other in where
]


def versions(bed: Bed) -> list[bytes]:
    """Remember the content of each write."""
    sent: list[bytes] = []
    bed.store.before["put"] = lambda _: sent.append((bed.folder / CLAIM).read_bytes())
    return sent


def halved(bed: Bed, names: tuple[str, ...], other: str | None) -> None:
    """Leave a file that was written to after its commit under these names, and another one under `other`."""
    if other == DONE:
        bed.write(PLAIN, BEFORE)
        bed.upload(PLAIN)
        bed.write(names[0], OLD + END)
    else:
        bed.write(PLAIN, OLD)
        bed.upload(PLAIN)
        with (bed.folder / DONE).open("ab") as writer:
            writer.write(END)
        (bed.folder / DONE).rename(bed.folder / names[0])
        if other:
            bed.write(other, NEW)
    for name in names[1:]:
        (bed.folder / name).hardlink_to(bed.folder / names[0])


def all_sent(bed: Bed, sent: list[bytes], other: str | None) -> None:
    """The next process comes to rest: the older one was sent first, and nothing is left.

    Only a claim that another process makes between a look and a link can stand beside the two names of an older file
    one of which is the plain one; then the older file is sent last.
    """
    bed.settle()
    assert bed.names() == []
    assert OLD + END in sent
    if other in {PLAIN, CLAIM}:
        assert NEW in sent
    assert sent[-1] == bed.content(PLAIN) == (NEW if other == PLAIN else OLD + END)


def test_a_completed_file_that_was_written_to_is_sent_before_a_newer_claim(make: Callable[..., Bed]) -> None:
    halved(bed := make(), (DONE,), CLAIM)
    sent, bed = versions(bed), make(bed)
    bed.settle()
    assert sent[-1] == bed.content(PLAIN) == NEW
    assert OLD + END in sent
    assert bed.names() == []


@pytest.mark.parametrize(("names", "other"), STATES)
def test_the_next_process_ends_it(make: Callable[..., Bed], names: tuple[str, ...], other: str | None) -> None:
    halved(bed := make(), names, other)
    all_sent(make(bed), versions(bed), other)


@pytest.mark.parametrize(("names", "other"), STATES)
def test_the_sweeper_ends_it(make: Callable[..., Bed], names: tuple[str, ...], other: str | None) -> None:
    halved(bed := make(), names, other)
    sent, bed = versions(bed), make(bed)
    bed.walk()
    if DONE in names:
        assert DONE not in bed.names()
    all_sent(bed, sent, other)


@pytest.mark.parametrize(("names", "other"), STATES)
def test_a_stop_at_once_loses_neither(make: Callable[..., Bed], names: tuple[str, ...], other: str | None) -> None:
    halved(bed := make(), names, other)
    sent, bed = versions(bed), make(bed)
    bed.give_back()
    if CLAIM in names:
        assert len({(bed.folder / name).stat().st_ino for name in bed.names()}) == len(bed.names())
        assert (CLAIM in bed.names()) == (other == PLAIN)
    all_sent(make(bed), sent, other)


@pytest.mark.parametrize("by", ["scan", "walk"])
def test_it_is_ended_whatever_the_store_knows_of_the_file(bed: Bed, by: str) -> None:
    """Its blob may be another file's by now: a mere `.completed` that nobody can prove would be kept."""
    bed.write(DONE, OLD + END)
    (bed.folder / PLAIN).hardlink_to(bed.folder / DONE)
    getattr(bed, by)()
    bed.work()
    bed.settle()
    assert bed.names() == []
    assert bed.content(PLAIN) == OLD + END


def test_a_file_half_way_is_not_completed_again_and_again(make: Callable[..., Bed]) -> None:
    """rename() between two names of one file does nothing and succeeds."""
    halved(bed := make(), (DONE, CLAIM), PLAIN)
    bed = make(bed, retention=3600)
    bed.scan()
    bed.work()
    assert bed.names() == [PLAIN, DONE]


class Unlinks:
    """os.unlink that fails so many times for what ends with `end`."""

    def __init__(self, end: str, code: int, times: int) -> None:
        self.end = end
        self.code = code
        self.left = times
        self._unlink = os.unlink

    def __call__(self, path: Any, **options: Any) -> None:
        if os.fspath(path).endswith(self.end) and self.left:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))
        self._unlink(path, **options)


CODES = [errno.ETIMEDOUT, errno.EACCES, errno.EIO]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("next_there", [False, True], ids=["alone", "next"])
def test_an_unlink_that_fails_when_a_completed_file_goes_back_is_made_again(
    bed: Bed, next_there: bool, code: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write(PLAIN, OLD)
    bed.upload(PLAIN)
    bed.append(DONE, END)
    sent = versions(bed)
    if next_there:
        bed.write(PLAIN, NEW)
    monkeypatch.setattr(os, "unlink", failing := Unlinks(".completed", code, times))
    if not next_there:
        bed.due()
    for _ in range(6):
        bed.settle()
    assert failing.left == 0
    all_sent(bed, sent, PLAIN if next_there else None)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("code", CODES)
def test_an_unlink_that_fails_when_a_claim_goes_back_is_made_again(
    bed: Bed, code: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = bed.write(PLAIN, OLD).open("ab", buffering=0)
    item = bed.item(PLAIN)
    writer.write(END)
    monkeypatch.setattr(os, "unlink", failing := Unlinks(".processing", code, times))
    sent = versions(bed)
    with writer:
        bed.handle(item)
    for _ in range(6):
        bed.settle()
    assert failing.left == 0
    all_sent(bed, sent, None)


@pytest.mark.parametrize("code", CODES)
def test_an_unlink_that_fails_at_a_stop_at_once_is_made_by_the_sweeper(
    bed: Bed, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is stopped by then, and nobody else would come to it."""
    bed.write(CLAIM, OLD)
    monkeypatch.setattr(os, "unlink", Unlinks(".processing", code, 1))
    bed.give_back()
    assert bed.names() == [PLAIN, CLAIM]
    bed.session.stopped = True
    bed.walk()
    assert bed.names() == [PLAIN]
    assert bed.session.ended == ["run"]


def test_a_marker_beside_a_claim_that_is_given_back_by_half_is_kept(bed: Bed) -> None:
    """Somebody's own `.completed`, which is neither of the two names, is not what was on its way back."""
    halved(bed, (CLAIM, PLAIN), None)
    (bed.folder / DONE).write_bytes(marker := b"somebody's own")
    bed.walk()
    assert bed.names() == [PLAIN, DONE, CLAIM]
    assert (bed.folder / DONE).read_bytes() == marker
    assert bed.files.kept().keys() == {DONE}

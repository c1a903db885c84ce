"""A `.completed` file is kept for its retention unless a new file needs its name: a slow writer's last bytes are seen."""

import time
from collections.abc import Callable

import pytest

from tests.invariants.bed import Bed
from uploader.errors import Vanished
from uploader.share.claim import Claim
from uploader.share.paths import opened
from uploader.upload.source import Source

DAY = 86_400


def test_an_item_whose_file_the_other_owner_has_completed_clears_nothing(pair: tuple[Bed, Bed]) -> None:
    """Our late worker finds its file gone: that is no failure, and no reason to sweep early."""
    ours, other = pair
    ours.write("x", b"first")
    item = ours.item("x")
    other.upload("x")
    ours.handle(item)
    assert ours.names() == ["x.completed"]
    assert ours.files.snapshot().failed == 0


def test_an_item_whose_name_now_is_that_of_an_unfinished_file_clears_nothing(pair: tuple[Bed, Bed]) -> None:
    """The next file of the name needs the room only when its writer has finished it."""
    ours, other = pair
    ours.write("x", b"first")
    item = ours.item("x")
    other.upload("x")
    with ours.write("x", b"sec").open("ab") as writer:
        ours.handle(item)
        assert ours.names() == ["x", "x.completed"]
        writer.write(b"ond")
    ours.settle()
    assert ours.content("x") == b"second"


def test_a_file_that_is_there_and_new_is_given_the_room(pair: tuple[Bed, Bed]) -> None:
    """A finished new file need not wait for the retention of the old one, whose content is proven."""
    ours, other = pair
    ours.write("x", b"first")
    other.upload("x")
    ours.write("x", b"second")
    ours.upload("x")
    assert ours.names() == ["x.completed"]
    assert ours.content("x") == b"second"


def test_a_claim_that_the_other_owner_has_completed_clears_nothing_of_the_next_file(
    pair: tuple[Bed, Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our late completion must not touch a `.completed` file that belongs to the name's next file."""
    ours, other = pair
    ours.write("x", b"first")
    item, upload = ours.item("x"), ours.transfer.upload

    def meanwhile(source: Source) -> None:
        upload(source)
        other.upload("x", "x.processing")
        other.due()
        other.write("x", b"second")
        other.upload("x")

    monkeypatch.setattr(ours.transfer, "upload", meanwhile)
    ours.handle(item)
    assert ours.names() == ["x.completed"]
    assert (ours.folder / "x.completed").read_bytes() == b"second"


def test_a_claim_that_is_gone_is_not_completed_whatever_stands_in_the_way(bed: Bed) -> None:
    """A vanished claim is reported as vanished, so that its worker does not blame the next file."""
    bed.write("x.completed", b"the next one's")
    with opened(bed.share.fd, "run") as folder, pytest.raises(Vanished):
        Claim(folder, "x", lambda: None).complete(1)


def test_a_proof_whose_time_is_over_deletes_nothing_but_what_it_proves(pair: tuple[Bed, Bed]) -> None:
    """The other owner has completed the name's next file, whose own retention has only begun."""
    ours, other = pair
    ours.write("x", b"first")
    ours.upload("x")
    ours.write("x", b"second")
    other.upload("x")
    ours.due()
    assert ours.names() == ["x.completed"]
    ours.settle()
    assert ours.names() == []


def test_a_proof_that_was_renewed_while_the_sweeper_was_busy_waits_anew(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name's next file was completed after the due list was made: it keeps its own retention."""
    bed = make(retention=DAY)
    bed.write("x", b"first")
    bed.upload("x")
    (session, path), *_ = bed.completed.proofs.due(time.monotonic() + 2 * DAY)
    bed.write("x", b"second")
    bed.upload("x")
    monkeypatch.setattr(bed.completed.proofs, "due", lambda _: [(session, path)])
    bed.due()
    assert bed.names() == ["x.completed"]

"""I9: two shards that both believe that they own a session can waste work but cannot corrupt or lose anything."""

import os
import random
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.invariants.bed import BLOCK, Bed
from tests.invariants.site import Site, arrive, files
from tests.support.programs import wait_for
from uploader.errors import FileError
from uploader.share.claim import Claim
from uploader.share.paths import opened

LARGE = 4 * BLOCK


def test_two_processes_on_one_session(tmp_path: Path, stack: ExitStack) -> None:
    """Two processes of ordinal 0 share a session, names come again, one is killed: every last version is stored."""
    site = Site(tmp_path, stack, shards=2).up()
    folder = site.start("run")
    expected: dict[str, bytes] = {}
    chance = random.Random(1)
    for turn in range(4):
        for number in range(25):
            path = f"{number % 5}/{number}.bin"
            expected[path] = chance.randbytes(chance.choice([0, 100, 5000, 70_000, 300_000]))
            arrive(folder, path, expected[path])
        if turn == 1:
            site.shards[1].kill()
            site.shards[1].start()
        wait_for(lambda: not [name for name in files(folder) if not name.endswith(".completed")], "the uploads", 120)
    assert site.blobs("run") == expected
    wait_for(lambda: not files(folder), "the sweep", 120)
    assert [one.process.poll() for one in site.shards if one.process] == [None, None]


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_the_other_one_does_everything_while_we_send(
    pair: tuple[Bed, Bed], size: int, swept: bool, again: bool
) -> None:
    """During our upload the other owner completes and sweeps our claim and sends the next file of the name."""
    ours, other = pair
    first, second = os.urandom(size), os.urandom(size)
    ours.write("x", first)
    item = ours.item("x")

    def meanwhile(_: str) -> None:
        ours.store.before.clear()
        other.upload("x", "x.processing")
        if swept:
            other.due()
        if again:
            other.write("x", second)
            other.upload("x")

    ours.store.before["commit" if size > BLOCK else "put"] = meanwhile
    ours.handle(item)
    for _ in range(2):
        ours.settle()
        other.settle()
    assert ours.content("x") == (second if again else first)
    assert ours.names() == []


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_late_writer_does_not_put_the_old_content_over_the_new(pair: tuple[Bed, Bed], size: int) -> None:
    """A writer that slept just before its commit is refused when the next file has been sent since."""
    ours, other = pair
    ours.write("x", b"1" * size)

    def meanwhile(_: str) -> None:
        ours.store.before.clear()
        (ours.folder / "x.processing").rename(ours.folder / "x")  # it gave our claim back
        other.upload("x")
        other.write("x", b"2" * size)
        other.upload("x")

    ours.store.before["commit" if size > BLOCK else "put"] = meanwhile
    ours.upload("x")
    assert ours.content("x") == b"2" * size


def test_two_that_stop_at_once_lose_nothing(pair: tuple[Bed, Bed]) -> None:
    """Both owners give the same claims back, and each file is there under its plain name."""
    ours, other = pair
    for number in range(10):
        ours.write(f"{number}.processing", b"%d" % number)
    walk = ours.discovery.walk

    def slow() -> object:
        for number, found in enumerate(walk()):
            if number == 3:
                other.give_back()
            yield found

    ours.discovery.walk = slow  # type: ignore[method-assign, assignment]
    ours.give_back()
    assert ours.names() == sorted(str(number) for number in range(10))
    assert {(ours.folder / name).read_bytes() for name in ours.names()} == {b"%d" % number for number in range(10)}


FIRST, NEXT = b"the only copy", b"the next of its name"


def claim_anew(bed: Bed, claim: Claim, plain: str) -> dict[str, bytes]:
    """Take the same name back as the paused owner, then claim the file again."""
    (claim.give_back if plain == "x" else claim.reopen)()
    assert bed.names() == [plain]
    (claim.take if plain == "x" else lambda: claim.complete((bed.folder / plain).stat().st_ino))()
    return {"x.processing" if plain == "x" else "x.completed": FIRST}


def claim_the_next(bed: Bed, claim: Claim, plain: str) -> dict[str, bytes]:
    """Finish the file, so that the next file of its name takes its place."""
    there = claim_anew(bed, claim, plain)
    (name,) = there
    (bed.folder / name).rename(bed.folder / "elsewhere")
    (bed.folder / name).write_bytes(NEXT)
    return {"elsewhere": FIRST, name: NEXT}


@pytest.mark.parametrize("meanwhile", [claim_anew, claim_the_next])
@pytest.mark.parametrize(("name", "plain"), [("x.processing", "x"), ("x.completed", "x.processing")])
def test_a_file_is_never_left_without_a_name_by_two_that_rename_it_back(
    bed: Bed,
    name: str,
    plain: str,
    meanwhile: Callable[[Bed, Claim, str], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An owner paused between its link and its unlink must not remove a name that is a newer claim by then."""
    bed.write(name, FIRST)
    link, expected = os.link, dict[str, bytes]()

    def paused(*args: Any, **options: Any) -> None:
        link(*args, **options)
        monkeypatch.setattr(os, "link", link)
        expected.update(meanwhile(bed, Claim(at, "x", lambda: None), plain))

    with opened(bed.share.fd, "run") as at:
        monkeypatch.setattr(os, "link", paused)
        with suppress(FileError, OSError):
            (Claim(at, "x", lambda: None).give_back if plain == "x" else Claim(at, "x", lambda: None).reopen)()
    assert expected
    assert {one: (bed.folder / one).read_bytes() for one in bed.names()} == expected


def test_a_stop_that_is_paused_half_way_takes_no_file_from_the_shard_that_starts_again(
    pair: tuple[Bed, Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through the workers: at every moment the file is on the share or in the store."""
    ours, other = pair
    content = os.urandom(LARGE)
    ours.write("x", content)
    link = os.link

    def cancel(_: str) -> None:
        ours.store.before.clear()
        ours.files.cancel()

    def killed(_: str) -> None:
        raise SystemExit

    def paused(*args: Any, **options: Any) -> None:
        link(*args, **options)
        monkeypatch.setattr(os, "link", link)
        other.give_back()
        item = other.item("x")
        ours.store.before["stage"] = killed
        with pytest.raises(SystemExit):
            other.handle(item)
        ours.store.before.clear()

    ours.store.before["stage"] = cancel
    monkeypatch.setattr(os, "link", paused)
    ours.upload("x")
    assert ours.names() == ["x.processing"]
    ours = ours.again()
    ours.settle()
    assert ours.content("x") == content


def test_two_that_sweep_the_same_files(pair: tuple[Bed, Bed]) -> None:
    """A new file of a name, arriving while both owners sweep, is sent and not deleted."""
    ours, other = pair
    for number in range(10):
        ours.write(f"{number}", b"%d" % number)
        ours.upload(f"{number}")
    ours.write("3", b"new")

    def meanwhile(_: str) -> None:
        other.store.before.clear()
        ours.due()

    other.store.before["head"] = meanwhile
    other.walk()
    ours.settle()
    assert ours.names() == []
    assert ours.content("3") == b"new"

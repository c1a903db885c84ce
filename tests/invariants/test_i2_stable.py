"""I2: a file that changes while it is read is never committed; it goes back and has to settle."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.invariants.bed import BLOCK, NFS, Bed
from uploader.upload.source import Source

LARGE = 4 * BLOCK + 5


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def same_size(path: Path) -> None:
    """Write other content of the same length, and set another mtime."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def replace(path: Path) -> None:
    """Put another file under the name, with the size and mtime of the first."""
    status = path.stat()
    other = path.with_name(".other")
    other.write_bytes(b"?" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


CHANGES = [append, same_size, replace]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("instant", ["stage", "last block"])
def test_a_large_file_that_changes_under_way_is_not_committed(
    bed: Bed, change: Callable[[Path], None], instant: str
) -> None:
    """A change during any block, even the last, sends the file back to settle: two versions are never mixed."""
    content = os.urandom(LARGE)
    bed.write("x.bin", content)
    claimed = bed.folder / "x.bin.processing"
    calls: list[str] = []

    def hook(name: str) -> None:
        calls.append(name)
        if len(calls) == (1 if instant == "stage" else 5):
            change(claimed)

    bed.store.before["stage"] = hook
    bed.upload("x.bin")
    assert bed.store.writes == []
    assert bed.names() == ["x.bin"], "the claim is given back"
    assert (settling := bed.files.settling("x.bin"))
    assert settling.given_back
    expected = (bed.folder / "x.bin").read_bytes()
    bed.settle()
    assert bed.content("x.bin") == expected
    assert bed.names() == []


@pytest.mark.parametrize("change", [append, same_size])
def test_a_small_file_that_changes_while_it_is_read_is_not_put(
    bed: Bed, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is compared with the file once more before the one request that would store it."""
    bed.write("x.bin", b"content")
    read = Source.read

    def slow(source: Source, size: int, offset: int) -> bytes:
        data = read(source, size, offset)
        change(bed.folder / "x.bin.processing")
        return data

    monkeypatch.setattr(Source, "read", slow)
    bed.upload("x.bin")
    assert bed.store.writes == []
    assert bed.names() == ["x.bin"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [7, LARGE])
def test_a_file_that_is_not_what_was_found_is_not_even_read(
    bed: Bed, change: Callable[[Path], None], size: int
) -> None:
    """A file that changed between the look that called it ready and its claim goes back to settling, unread."""
    path = bed.write("x.bin", os.urandom(size))
    item = bed.item("x.bin")
    change(path)
    bed.store.before["stage"] = bed.store.before["put"] = lambda _: pytest.fail("it was sent")
    bed.handle(item)
    assert bed.names() == ["x.bin"]


def test_the_look_before_the_commit_asks_the_server(make: Callable[..., Bed]) -> None:
    """A chmod to the same mode gives up a delegation, which would blind us to a writer on this machine.

    Nothing of the file changes by it but the ctime.
    """
    bed = make(tells=NFS)
    path = bed.write("x.bin", os.urandom(LARGE))
    path.chmod(0o640)
    claimed = path.with_name("x.bin.processing")
    seen: dict[str, os.stat_result] = {}

    def note(what: str) -> None:
        bed.tick()
        seen[what] = claimed.stat()

    for call in ("stage", "commit"):
        bed.store.before[call] = lambda _, call=call: note(call)
    bed.upload("x.bin")
    before, after = seen["stage"], seen["commit"]
    assert after.st_ctime_ns > before.st_ctime_ns
    assert (after.st_mtime_ns, after.st_mode, after.st_uid) == (before.st_mtime_ns, before.st_mode, before.st_uid)
    assert before.st_mode & 0o777 == 0o640


def test_a_file_given_back_waits_although_its_ctime_says_finished(make: Callable[..., Bed]) -> None:
    """Our own rename made the ctime later than the mtime: that is no sign of a finished file."""
    bed = make(settle=3600)
    bed.write("first.bin", b"content")
    bed.scan()  # the run has begun, so that a ctime since then counts
    path = bed.write("x.bin", b"content")
    item = bed.item("x.bin")
    append(path)
    bed.tick()
    bed.handle(item)
    assert path.stat().st_ctime_ns > path.stat().st_mtime_ns
    bed.discovery.hear("", "x.bin")
    bed.due_now("x.bin")
    bed.scan()
    assert bed.files.pending() == 2
    assert not bed.files.knows("x.bin")
    assert bed.names() == ["first.bin", "x.bin"]


def test_what_was_there_already_is_compared_before_it_counts_as_sent(bed: Bed) -> None:
    """A `.processing` file left by a crash and changed since is sent again, although a blob of its name exists."""
    bed.write("x.bin", b"content")
    bed.upload("x.bin")
    (bed.folder / "x.bin.completed").rename(bed.folder / "x.bin.processing")
    same_size(bed.folder / "x.bin.processing")
    bed.upload("x.bin", "x.bin.processing")
    assert bed.content("x.bin") == b"?ontent"

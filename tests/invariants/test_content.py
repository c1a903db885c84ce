"""What a file is: its content, not its times. Cases that stamps alone do not tell (findings: each once lost a file)."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.invariants.bed import BLOCK, NFS, Bed
from tests.need import absent
from uploader.discovery import open_files, readiness
from uploader.share.filesystem import FileSystem
from uploader.share.lease import OPEN
from uploader.upload.source import Source

SIZES = [4096, 3 * BLOCK]
BLIND = FileSystem("ext4", leases=False, births=True)
OTHER = FileSystem("other", leases=True, births=True)  # one that is looked at by fstat


def mapped(path: Path, size: int) -> mmap.mmap:
    """Map a file of zeros for writing, as numpy and HDF5 do; its descriptor is closed."""
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)


def fill(mapping: mmap.mmap) -> bytes:
    """Store to each page."""
    mapping[:] = content = os.urandom(len(mapping))
    return content


def put_back(path: Path) -> None:
    """Write to the same length in place, and put the mtime back: `touch -r`, `rsync --inplace -t`, `exiftool -P`."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"changed")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def said(bed: Bed) -> dict[str, str | None]:
    """Return what status says of files."""
    return {one.path: one.error for one in bed.files.snapshot(50).current}


# --- who can still write


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_mapped_for_writing_waits_whatever_its_times_say(bed: Bed, size: int) -> None:
    """Once touched, its pages are stored to without moving the mtime; the descriptor may be closed."""
    mapping = mapped(bed.folder / "x", size)
    fill(mapping)
    bed.scan()
    assert not bed.files.knows("x"), "it is not even claimed"
    bed.settle()
    assert bed.names() == ["x"]
    assert said(bed) == {"x": OPEN}
    assert bed.files.snapshot().waiting == bed.files.pending() == 1, "a drain waits for it"
    content = fill(mapping)
    mapping.close()
    bed.due_now("x")
    bed.settle()
    assert bed.content("x") == content
    assert bed.names() == []


def test_a_close_is_not_the_end_of_a_mapping(bed: Bed) -> None:
    mapping = mapped(bed.folder / "x", 4096)
    bed.discovery.hear("", "x")
    assert not bed.files.knows("x")
    assert said(bed) == {"x": OPEN}
    mapping.close()
    bed.discovery.hear("", "x")
    assert bed.files.knows("x")


def test_an_open_file_is_looked_at_again_soon_and_ever_more_seldom(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is a call or two, so one that stays open for hours must not keep a thread busy."""
    clock: Any = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(readiness, "time", clock)
    bed = make(settle=1)
    pauses = []
    with bed.write("x", b"content").open("r+b"):
        bed.discovery.hear("", "x")
        for _ in range(6):
            settling = bed.files.settling("x")
            assert settling
            pauses.append(round(settling.due - clock.now, 3))
            clock.now = settling.due
            bed.discovery.look_again(clock.now - 0.01)
            assert bed.files.settling("x") is settling, "not looked at before it is due"
            bed.discovery.look_again(clock.now)
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    bed.discovery.look_again(clock.now + 1)
    assert bed.files.knows("x")


def test_a_scan_that_finds_an_open_file_is_followed_by_one_when_it_is_due(make: Callable[..., Bed]) -> None:
    """And not by the next one of the interval."""
    bed = make(scan_interval=3600)
    with bed.write("x", b"content").open("r+b"):
        bed.scan()
    settling = bed.files.settling("x")
    assert settling
    assert bed.discovery._last
    assert bed.discovery._last.ripe == settling.due


def test_of_open_files_that_are_too_many_a_scan_finds_the_rest(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "MOST", 1)
    bed = make(scan_interval=3600)
    bed.scan()
    with bed.write("x", b"content").open("r+b"), bed.write("y", b"content").open("r+b"):
        for name in ("x", "y", "x"):
            bed.discovery.hear("", name)
    assert bed.discovery._last
    assert bed.discovery._last.ripe < float("inf")
    bed.discovery.look_again(float("inf"))
    assert (bed.files.knows("x"), bed.files.knows("y")) == (True, False)


@pytest.mark.parametrize("size", SIZES)
def test_a_claimed_file_that_somebody_opens_for_writing_is_given_back(bed: Bed, size: int) -> None:
    """Between discovery and the worker's turn."""
    path = bed.write("x", bytes(size))
    item = bed.item("x")
    with path.open("r+b"):
        bed.handle(item)
        assert bed.names() == ["x"]
        assert bed.store.writes == []
        assert said(bed) == {"x": OPEN}
    bed.settle()
    assert bed.names() == []


def test_a_large_file_that_is_opened_while_it_is_read_is_not_committed(bed: Bed) -> None:
    bed.write("x", bytes(SIZES[1]))
    writers = []
    bed.store.before["stage"] = lambda _: writers.append((bed.folder / "x.processing").open("r+b"))
    bed.upload("x")
    for writer in writers:
        writer.close()
    assert bed.store.writes == []
    assert bed.names() == ["x"]


def test_a_leftover_that_is_open_waits_beside_its_successor(bed: Bed) -> None:
    with bed.write("x.processing", b"first").open("r+b"):
        bed.write("x", b"second")
        bed.upload("x", "x.processing")
        assert bed.names() == ["x", "x.processing"]
        assert bed.error("x") == OPEN
    bed.settle()
    assert bed.content("x") == b"second"
    assert bed.names() == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_completed_file_that_somebody_can_write_to_is_not_deleted(
    make: Callable[..., Bed], size: int, restarted: bool
) -> None:
    bed = make()
    bed.write("x", bytes(size))
    bed.upload("x")
    bed = make(bed) if restarted else bed
    sweep = bed.walk if restarted else bed.due
    with (bed.folder / "x.completed").open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), size)
    sweep()
    assert bed.names() == ["x.completed"]
    assert said(bed) == {"x.completed": f"the file cannot be deleted: {OPEN}"}
    content = fill(mapping)
    mapping.close()
    bed.completed.proofs.put_off(("run", "x"), 0)
    sweep()
    assert bed.names() == ["x"], "it has been written to"
    assert said(bed) == {}
    bed.settle()
    assert bed.content("x") == content


def test_a_completed_file_that_is_closed_again_as_it_was_is_deleted(bed: Bed) -> None:
    bed.write("x", b"content")
    bed.upload("x")
    with (bed.folder / "x.completed").open("r+b"):
        bed.due()
        assert bed.names() == ["x.completed"]
    bed.completed.proofs.put_off(("run", "x"), 0)
    bed.due()
    assert bed.names() == []
    assert said(bed) == {}


def test_a_new_file_waits_while_the_completed_one_of_its_name_is_open(bed: Bed) -> None:
    bed.write("x", b"first")
    bed.upload("x")
    with (bed.folder / "x.completed").open("r+b"):
        bed.write("x", b"second")
        bed.upload("x")
        assert bed.names() == ["x", "x.completed"]
        assert OPEN in bed.error("x")
    bed.settle()
    assert bed.content("x") == b"second"


@pytest.mark.parametrize("size", SIZES)
def test_where_nobody_can_tell_a_store_through_a_mapping_moves_the_times(make: Callable[..., Bed], size: int) -> None:
    """The claimed file's pages are written first: the next store to each of them is the first one again."""
    bed = make(tells=BLIND)
    mapping = mapped(bed.folder / "x", size)
    fill(mapping)
    bed.store.before["put"] = bed.store.before["stage"] = lambda _: fill(mapping)
    bed.upload("x")
    bed.store.before.clear()
    bed.walk()
    assert bed.names() == ["x"], "not committed, or back again"
    content = bytes(mapping)
    mapping.close()
    bed.settle()
    assert bed.content("x") == content


# --- the mtime put back


@pytest.mark.parametrize("call", ["put", "stage"])
def test_an_mtime_that_is_put_back_before_the_commit_hides_nothing(bed: Bed, call: str) -> None:
    """A small file changes while the store takes it, a large one while its first block is sent."""
    content = os.urandom(SIZES[call == "stage"])
    bed.write("x", content)
    claimed = bed.folder / "x.processing"

    def changed(_: str) -> None:
        bed.store.before.clear()
        bed.tick()
        put_back(claimed)

    bed.store.before[call] = changed
    bed.upload("x")
    assert bed.names() == ["x"]
    bed.settle()
    assert bed.content("x") == b"changed" + content[7:]
    assert bed.names() == []


def test_an_mtime_that_is_put_back_while_a_small_file_is_read_hides_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write("x", b"content")
    read = Source.read

    def slow(source: Source, size: int, offset: int) -> bytes:
        data = read(source, size, offset)
        bed.tick()
        put_back(bed.folder / "x.processing")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Source, "read", slow)
        bed.upload("x")
    assert bed.store.writes == []
    assert bed.names() == ["x"]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_an_mtime_that_is_put_back_after_the_commit_hides_nothing(
    make: Callable[..., Bed], size: int, restarted: bool
) -> None:
    bed = make()
    content = os.urandom(size)
    bed.write("x", content)
    bed.upload("x")
    bed.tick()
    put_back(bed.folder / "x.completed")
    bed = make(bed) if restarted else bed
    (bed.walk if restarted else bed.due)()
    assert bed.names() == ["x"]
    bed.settle()
    assert bed.content("x") == b"changed" + content[7:]


def test_a_write_of_equal_length_within_one_tick_of_the_clock_is_found_by_its_content(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coarse clock: neither mtime nor ctime moves. Where the last write is not older than our own step, who knows?"""
    bed = make(tells=OTHER)
    bed.write("x", b"content")
    frozen(monkeypatch)
    bed.upload("x")
    (bed.folder / "x.completed").write_bytes(b"CONTENT")
    bed.due()
    assert bed.names() == ["x"]


def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look tell the times of a file system whose clock stands."""
    fstat = os.fstat

    def standing(fd: int) -> os.stat_result:
        now = fstat(fd)
        times = dict.fromkeys(("st_atime_ns", "st_mtime_ns", "st_ctime_ns"), 1_000_000_007)
        return os.stat_result(tuple(now), times)

    monkeypatch.setattr(os, "fstat", standing)


# --- a ctime that moves, and the content does not


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o600), lambda path: os.link(path, path.with_name(".y"))])
def test_a_completed_file_whose_mode_or_links_change_is_compared_and_deleted(
    bed: Bed, change: Callable[[Path], None]
) -> None:
    """No store is asked, and nothing is sent again."""
    bed.write("x", b"content")
    bed.upload("x")
    bed.tick()
    change(bed.folder / "x.completed")
    bed.store.before["head"] = lambda _: pytest.fail("it asked")
    bed.due()
    assert [name for name in bed.names() if name != ".y"] == []
    assert bed.store.writes == ["run/x"]


def test_what_nothing_has_happened_to_is_deleted_without_being_read_again(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own renames move the ctime, and are no reason."""
    bed.write("x", b"content")
    bed.tick()
    item = bed.item("x")
    bed.handle(item)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("it was read"))
    bed.due()
    assert bed.names() == []


# --- an inode that is given again


@pytest.fixture
def again(bed: Bed) -> Callable[[str, int, bytes], None]:
    """Make a file that gets the inode of one that is deleted."""
    bed.tick()  # its own file must be there before one is deleted

    def made(name: str, inode: int, content: bytes) -> None:
        bed.tick()  # the kernel's births are as coarse as its clock
        spare = []
        for number in range(1000):
            path = bed.folder / f".spare-{number}"
            path.write_bytes(content)
            if path.stat().st_ino == inode:
                path.rename(bed.folder / name)
                break
            spare.append(path)
        else:
            absent("no file system here that gives a free inode again")
        for path in spare:
            path.unlink()

    return made


@pytest.mark.parametrize("next_one", [False, True])
def test_a_marker_with_the_inode_of_what_was_sent_is_kept(
    bed: Bed, again: Callable[[str, int, bytes], None], next_one: bool
) -> None:
    """Somebody makes `x.completed` when x has been swept, also while the next x is claimed."""
    path = bed.write("x", b"content")
    inode = path.stat().st_ino
    bed.upload("x")
    bed.due()
    assert bed.names() == []
    again("x.completed", inode, b"done")
    if next_one:
        bed.write("x.processing", b"the next one")
    bed.walk()
    if next_one:
        bed.upload("x", "x.processing")
    assert (bed.folder / "x.completed").read_bytes() == b"done"
    assert "x.completed" in said(bed)
    assert bed.content("x") != b"done"


def test_a_marker_in_place_of_a_completed_file_is_kept(bed: Bed, again: Callable[[str, int, bytes], None]) -> None:
    """This process still knows the file that was there."""
    inode = bed.write("x", b"content").stat().st_ino
    bed.upload("x")
    (bed.folder / "x.completed").unlink()
    again("x.completed", inode, b"done")
    bed.due()
    assert (bed.folder / "x.completed").read_bytes() == b"done"
    assert "x.completed" in said(bed)
    assert bed.content("x") == b"content"


@pytest.mark.parametrize(
    ("content", "later", "kept"),
    [(b"content", b"content and more", False), (b"content", b"another one", True), (b"", b"content", False)],
)
def test_without_birth_times_a_file_that_goes_on_is_known_by_its_beginning(
    make: Callable[..., Bed], content: bytes, later: bytes, kept: bool
) -> None:
    bed = make(tells=NFS)
    bed.write("x", content)
    bed.upload("x")
    (bed.folder / "x.completed").write_bytes(later)
    make(bed).walk()
    assert bed.names() == ["x.completed" if kept else "x"]


def test_without_birth_times_a_marker_with_the_inode_of_an_empty_file_that_was_deleted_is_kept(
    make: Callable[..., Bed],
) -> None:
    """An empty beginning is that of every file: the receipt says that the file is gone."""
    bed = make(tells=NFS)
    bed.write("x", b"")
    bed.upload("x")
    bed.completed.write_receipts(bed.files, ["x"])
    (bed.folder / "x.completed").write_bytes(b"somebody's own")  # as if it were another file with the same inode
    bed = make(bed)
    bed.walk()
    assert (bed.names(), list(bed.files.kept())) == (["x.completed"], ["x.completed"])


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_that_is_found_equal_names_the_file_it_was_found_equal_to(make: Callable[..., Bed], size: int) -> None:
    """The same content comes again as another file, is changed after the commit, and the process ends."""
    bed = make()
    content = os.urandom(size)
    for _ in range(2):
        bed.write("x", content)
        bed.upload("x")
        bed.write(".keep", b"")  # the inode must be another
        (bed.folder / "x.completed").rename(bed.folder / f".{_}")
    (bed.folder / ".1").rename(bed.folder / "x.completed")
    bed.append("x.completed", b" and more")
    after = make(bed)
    after.walk()
    assert after.names().count("x") == 1, "known again, and sent again"
    after.settle()
    assert after.content("x") == content + b" and more"


def test_a_leftover_that_is_in_the_store_already_is_what_the_blob_names(make: Callable[..., Bed]) -> None:
    bed = make()
    bed.write("x", b"content")
    bed.upload("x")
    (bed.folder / "x.completed").rename(bed.folder / ".first")
    bed.write("x.processing", b"content")
    bed.upload("x", "x.processing")
    assert bed.store.writes == ["run/x"]
    bed.append("x.completed", b" and more")
    after = make(bed)
    after.walk()
    assert "x" in after.names()

"""Local copies: written while the file is read, within a budget, deleted afterwards, and never a reason to fail."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.faults import Do, Refuse, StallReply
from tests.endpoint.request import Operation
from tests.endpoint.store import Store
from tests.support.programs import wait_for
from tests.upload.shards import MIB, Shard, noise, shard
from uploader.upload.staging import Staging

BLOCKS: dict[str, Any] = {"block_size": MIB, "memory": 8 * MIB}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "staging"
    made.mkdir()
    return made


def read_by(one: Shard) -> int:
    """Return the bytes that the process has read from files (proc(5), rchar: sockets do not count)."""
    return int(Path(f"/proc/{one.server.pid}/io").read_text().split("rchar:")[1].split()[0])


def copies(folder: Path) -> list[str]:
    """List the files. os.walk, unlike rglob, skips folders that disappear."""
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


@pytest.mark.parametrize("size", [1000, 24 * MIB + 7])
def test_a_copy_is_whole_when_the_last_byte_is_sent_and_gone_when_it_is_stored(
    tmp_path: Path, folder: Path, size: int
) -> None:
    """Each block is written to the copy as it is read, so the file on the share is read once."""
    content = noise(size)
    with shard(tmp_path, staging=folder, **BLOCKS) as one:
        one.session()
        seen: list[bytes] = []

        def look(_: object) -> None:
            seen.extend((folder / name).read_bytes() for name in copies(folder))

        one.endpoint.faults.add(Do(look), Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST)
        before = read_by(one)
        one.arrive("run/a/b.bin", content)
        one.stored("run/a/b.bin")
        assert read_by(one) - before < size * 1.2 + MIB, "the file was read more than once"
        assert seen == [content]
        wait_for(lambda: not list(folder.iterdir()), "the copy and its folders to go")
        assert one.content("run/a/b.bin") == content


def test_a_copy_of_a_file_that_is_sent_twice_is_no_longer_than_the_file(tmp_path: Path, folder: Path) -> None:
    """The store loses the blocks just before the commit, and every block is written once more."""
    content = noise(3 * MIB)
    with shard(tmp_path, staging=folder, **BLOCKS) as one:
        one.session()
        seen: list[bytes] = []
        one.endpoint.faults.add(Do(Store.expire), Operation.PUT_BLOCK_LIST)
        one.endpoint.faults.add(
            Do(lambda _: seen.append((folder / "run/a.bin").read_bytes())), Operation.PUT_BLOCK_LIST
        )
        one.arrive("run/a.bin", content)
        one.stored("run/a.bin")
        assert seen == [content]


def test_copies_of_a_crash_are_swept(tmp_path: Path, folder: Path) -> None:
    """After SIGKILL the next process deletes the copies that nobody writes, and their folders."""
    with shard(tmp_path, staging=folder, **BLOCKS) as one:
        one.endpoint.faults.add(StallReply(600), Operation.PUT_BLOCK_LIST)
        one.session()
        one.arrive("run/deep/down/a.bin", noise(8 * MIB))
        wait_for(lambda: one.endpoint.log.of(Operation.PUT_BLOCK_LIST), "the commit")
        one.server.kill()
        assert copies(folder) == ["run/deep/down/a.bin"]
        one.endpoint.faults.clear()
        one.server.start()
        wait_for(lambda: not list(folder.iterdir()), "an empty folder")


def test_a_copy_beyond_the_budget_is_not_made(tmp_path: Path, folder: Path) -> None:
    """Files are sent without a copy, one log line says so, and copies are made again as soon as there is room."""
    with shard(tmp_path, staging=folder, staging_size=3 * MIB, **BLOCKS) as one:
        one.session()
        for number in range(5):
            one.arrive(f"run/large-{number}.bin", noise(4 * MIB))
        one.stored(*(f"run/large-{number}.bin" for number in range(5)))
        assert len(one.events("staging.skipped")) == 1
        one.endpoint.faults.add(StallReply(600), Operation.PUT_BLOCK_LIST)
        one.arrive("run/fits.bin", noise(2 * MIB))
        wait_for(lambda: copies(folder) == ["run/fits.bin"], "a copy of what fits")
        assert not one.events("file.failed")


def test_a_disk_that_fails_on_the_way_ends_the_copy_and_not_the_upload(tmp_path: Path, folder: Path) -> None:
    """When the disk refuses to write on, every file is sent from the share; one log line says so."""
    with shard(tmp_path, staging=folder, **BLOCKS) as one:
        one.session()
        resource.prlimit(one.server.pid, resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
        contents = {f"run/{number}.bin": noise(6 * MIB) for number in range(4)}
        for name, content in contents.items():
            one.arrive(name, content)
        one.stored(*contents)
        assert {name: one.content(name) for name in contents} == contents
        wait_for(lambda: not copies(folder), "no copy to be left")
        assert len(one.events("staging.skipped")) == 1
        assert not one.events("file.failed")


def test_a_folder_that_is_gone_is_no_reason_to_fail(tmp_path: Path, folder: Path) -> None:
    """When someone deletes the staging folder, uploads go on without copies."""
    with shard(tmp_path, staging=folder, **BLOCKS) as one:
        one.session()
        one.arrive("run/before.bin", noise(3 * MIB))
        one.stored("run/before.bin")
        wait_for(lambda: not list(folder.iterdir()), "the copy and its folders to go")
        folder.rmdir()
        for name in ("run/small.bin", "run/large.bin"):
            one.arrive(name, noise(1000 if "small" in name else 3 * MIB))
        one.stored("run/small.bin", "run/large.bin")
        assert len(one.events("staging.skipped")) == 1


def test_a_file_in_the_place_of_a_copys_folder_is_no_reason_to_fail(tmp_path: Path, folder: Path) -> None:
    """The file is sent without a copy."""
    with shard(tmp_path, staging=folder, sweep_interval=3600, **BLOCKS) as one:
        (folder / "run").write_bytes(b"in the way")
        one.session()
        one.arrive("run/a.bin", noise(3 * MIB))
        one.stored("run/a.bin")


def test_a_failed_upload_leaves_no_copy(tmp_path: Path, folder: Path) -> None:
    """Copies of files that are tried again for days must not fill the disk."""
    with shard(tmp_path, staging=folder, sweep_interval=3600, **BLOCKS) as one:
        one.endpoint.faults.add(Refuse(403, "AuthorizationFailure"), Operation.PUT_BLOCK, skip=1, times=100)
        one.session()
        one.arrive("run/a.bin", noise(4 * MIB))
        wait_for(lambda: one.events("file.failed"), "the failure")
        wait_for(lambda: not copies(folder), "no copy to be left")


def test_only_copies_of_ours_are_swept_whatever_the_folder_is(folder: Path) -> None:
    """Other people's files there are kept, even in our folders and with modes like ours."""
    first = Staging(folder, 0).begin("run", "a/b.bin", 5)
    assert first  # and the process dies
    theirs = [folder / name for name in ("precious.bin", "data/precious.bin", "run/precious.bin", "run/a/precious.bin")]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"precious")
        path.chmod(0o600)
    if os.geteuid() == 0:
        theirs[0].chmod(0o1600)
        os.chown(theirs[0], 1234, 1234)
    (folder / "empty").mkdir(0o700)
    (folder / "run/link").symlink_to(folder / "data")
    Staging(folder, 0).sweep()
    assert all(path.read_bytes() == b"precious" for path in theirs)
    assert (folder / "empty").is_dir()
    assert copies(folder) == sorted(str(path.relative_to(folder)) for path in theirs)


def test_a_copy_never_takes_the_place_of_anothers_file(folder: Path) -> None:
    """A stranger's file under the copy's name is neither overwritten nor deleted."""
    assert Staging(folder, 0).begin("run", "b.bin", 5)
    (folder / "run/a.bin").write_bytes(b"precious")
    copy = Staging(folder, 0).begin("run", "a.bin", 5)
    assert copy
    copy.write(memoryview(b"other"))
    copy.remove()
    assert (folder / "run/a.bin").read_bytes() == b"precious"


def test_no_copy_is_put_into_anothers_folder(folder: Path) -> None:
    """A copy in a folder that we did not make would never be swept."""
    (folder / "run/a").mkdir(parents=True)
    copy = Staging(folder, 0).begin("run", "a/b/c.bin", 5)
    assert copy
    copy.write(memoryview(b"other"))
    assert not list((folder / "run/a").iterdir())


def test_a_copy_takes_the_place_of_one_that_a_crash_left(folder: Path) -> None:
    """The leftover copy of the same name is replaced whole, even where it was longer."""
    for content in (b"first and longer", b"second"):
        copy = Staging(folder, 0).begin("run", "a/b.bin", 20)
        assert copy
        copy.write(memoryview(content))
        assert (folder / "run/a/b.bin").read_bytes() == content


def test_copies_are_swept_where_folders_inherit_their_group(folder: Path) -> None:
    """An emptyDir with fsGroup has the set-group-ID bit; our folders there are still known as ours."""
    folder.chmod(0o2777)
    assert Staging(folder, 0).begin("run", "a/b.bin", 5)
    Staging(folder, 0).sweep()
    assert not list(folder.iterdir())


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    """A link under the copy's name, which someone left there, is not followed."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (folder / "run").mkdir()
    (folder / "run/a.bin").symlink_to(target)
    copy = Staging(folder, 0).begin("run", "a.bin", 5)
    assert copy
    copy.write(memoryview(b"other"))
    copy.remove()
    assert target.read_bytes() == b"precious"


def test_the_budget_leaves_room_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies in progress count with their whole size; 15% of the disk stay free."""
    disk = os.statvfs(folder)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)  # others may write to this disk during the test
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    margin = whole * 15 // 100
    staging = Staging(folder, 0)
    assert staging.begin("run", "too-large.bin", free - margin + 256 * MIB) is None
    first = staging.begin("run", "first.bin", (free - margin) // 3 * 2)
    assert first
    assert staging.begin("run", "second.bin", (free - margin) // 3 * 2) is None
    first.remove()
    second = staging.begin("run", "second.bin", (free - margin) // 3 * 2)
    assert second
    second.remove()


def test_a_copy_of_one_name_is_written_by_one_upload(folder: Path) -> None:
    """A second upload of the name goes without a copy, and the sweep leaves a copy in progress alone."""
    staging = Staging(folder, 0)
    first = staging.begin("run", "a.bin", 5)
    assert first
    assert staging.begin("run", "a.bin", 5) is None
    first.write(memoryview(b"first"))
    staging.sweep()
    assert (folder / "run/a.bin").read_bytes() == b"first"
    first.remove()
    staging.sweep()
    assert not list(folder.iterdir())

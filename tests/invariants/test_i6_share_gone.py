"""I6: gone is not empty. Nothing is deleted, no session ends, and the process says why it ends."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from tests.invariants.site import Site, arrive, files, still
from tests.support.programs import wait_for
from uploader.errors import ShareLost
from uploader.share.mount import OWN

# How a share goes, and the reason that is given. `copied`: nfs-watch's folder is there too, with the same records.
GOING = {
    "empty": "is no longer the share that was there at the start",
    "copied": "is no longer the share that was there at the start",
    "emptied": "is gone from the share",  # the same folder, with nothing in it: another disk behind the same export
}


def go(root: Path, away: Path, how: str) -> None:
    if how == "emptied":
        away.mkdir()
        for path in list(root.iterdir()):
            path.rename(away / path.name)
        return
    root.rename(away)
    root.mkdir()
    if how == "copied":
        shutil.copytree(away / OWN, root / OWN)
        (root / "run").mkdir()


def come_back(root: Path, away: Path, how: str) -> None:
    if how == "emptied":
        for path in list(away.iterdir()):
            path.rename(root / path.name)
        return
    shutil.rmtree(root)
    away.rename(root)


@pytest.mark.parametrize("how", GOING)
def test_a_share_that_goes_ends_the_process_and_nothing_else(tmp_path: Path, stack: ExitStack, how: str) -> None:
    """When the share is back, the next process finishes the work as if nothing had happened.

    Nothing is due to be deleted in the first process's life, and it is stopped while its share goes: so what lies there
    is the same before and after, however slow the machine is.
    """
    site = Site(tmp_path, stack, retention=3600).up()
    folder = site.start("run")
    for number in range(20):
        arrive(folder, f"{number}.bin", b"content")
    (folder / "kept.completed").write_bytes(b"somebody's")
    wait_for(lambda: all(name.endswith(".completed") for name in files(folder)), "the uploads")
    assert len(site.blobs("run")) == 20
    assert site.post("stop", session="run").status_code == 202
    away = tmp_path / "away"
    with still(site.shards[0]):
        go(site.root, away, how)
        before = files(away / "run")
    assert site.shards[0].wait() == 75
    (reason,) = [line for line in site.shards[0].log().splitlines() if '"event":"process.ends"' in line]
    assert GOING[how] in reason
    assert files(away / "run") == before
    assert (away / OWN / "sessions/run.json").exists()
    come_back(site.root, away, how)
    site.shards[0].env["NFS_WATCH_RETENTION"] = "0.2"
    site.up()
    wait_for(lambda: files(folder) == ["kept.completed"], "the sweep")


@pytest.mark.parametrize("look", [Bed.scan, Bed.walk])
def test_a_share_that_is_another_is_noticed_by_whoever_finds_nothing(
    bed: Bed, tmp_path: Path, look: Callable[[Bed], None]
) -> None:
    """A scan or walk that finds nothing checks the share first, or a stopped session would be forgotten."""
    bed.discovery.drain()
    bed.session.stopped = True
    go(bed.root, tmp_path / "away", "empty")
    with pytest.raises(ShareLost, match=GOING["empty"]):
        look(bed)
    assert not bed.discovery.finished
    assert not bed.session.ended


def test_a_session_whose_folder_is_gone_does_not_end(bed: Bed, tmp_path: Path) -> None:
    """A folder that someone moved away for a moment, while the share is there, is no sign that all files are done."""
    bed.write("x", b"content")
    bed.discovery.drain()
    bed.folder.rename(tmp_path / "away")
    for _ in range(3):
        bed.scan()
    assert not bed.discovery.finished
    assert "cannot be read" in str(bed.files.snapshot().last_error)
    (tmp_path / "away").rename(bed.folder)
    bed.settle()
    bed.scan()
    assert bed.discovery.finished


def test_a_session_whose_folder_cannot_be_read_does_not_end(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission, the session's own or one in it, holds the drain until it can be read."""
    bed.write("sub/x", b"content")
    bed.discovery.drain()
    for bad in (bed.folder, bed.folder / "sub"):
        with monkeypatch.context() as patch:
            patch.setattr("os.scandir", _refusing(bad))
            for _ in range(3):
                bed.scan()
            bed.walk()
        assert not bed.discovery.finished
    bed.settle()
    bed.scan()
    assert bed.discovery.finished
    assert bed.content("sub/x") == b"content"


def _refusing(bad: Path) -> object:
    import os  # noqa: PLC0415 before it is patched

    scandir, inode = os.scandir, bad.stat().st_ino

    def refused(fd: int) -> object:
        if os.fstat(fd).st_ino == inode:
            raise PermissionError(13, "Permission denied")
        return scandir(fd)

    return refused

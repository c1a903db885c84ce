"""I6: gone is not empty. Nothing is deleted, no session ends, and the process says why it does."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from tests.invariants.site import Site, arrive, files
from tests.programs import wait_for


@pytest.mark.parametrize("how", ["empty", "emptied"])
def test_a_share_that_goes_ends_the_process_and_nothing_else(tmp_path: Path, stack: ExitStack, how: str) -> None:
    """Back again, the next process finishes the work as if nothing had been."""
    site = Site(tmp_path, stack, retention=2).up()
    folder = site.start("run")
    for number in range(20):
        arrive(folder, f"{number}.bin", b"content")
    (folder / "kept.completed").write_bytes(b"somebody's")
    wait_for(lambda: len(site.blobs("run")) == 20, "the uploads")
    assert site.post("stop", session="run").status_code == 202
    away = tmp_path / "away"
    if how == "emptied":  # the same folder, with nothing in it: another disk behind the same export
        away.mkdir()
        for path in list(site.root.iterdir()):
            path.rename(away / path.name)
    else:
        site.root.rename(away)
        site.root.mkdir()
    before = files(away / "run")
    assert site.shards[0].wait(15) == 75
    assert '"event":"process.ends"' in site.shards[0].log()
    assert files(away / "run") == before
    assert (away / ".nfs-watch/sessions/run.json").exists()
    if how == "emptied":
        for path in list(away.iterdir()):
            path.rename(site.root / path.name)
    else:
        site.root.rmdir()
        away.rename(site.root)
    site.up()
    wait_for(lambda: files(folder) == ["kept.completed"], "the sweep")


def test_a_session_whose_folder_is_gone_does_not_end(bed: Bed, tmp_path: Path) -> None:
    """Someone moved it away for a moment; the share itself is there."""
    ended = []
    bed.write("x", b"content")
    bed.discovery.drain(lambda: ended.append(True))
    bed.folder.rename(tmp_path / "away")
    for _ in range(3):
        bed.scan()
    assert not ended
    assert "cannot be read" in str(bed.files.last_error)
    (tmp_path / "away").rename(bed.folder)
    bed.settle()
    bed.scan()
    assert ended


def test_a_session_whose_folder_cannot_be_read_does_not_end(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the top nor one folder in it; permissions come back."""
    ended = []
    bed.write("sub/x", b"content")
    bed.discovery.drain(lambda: ended.append(True))
    for bad in (bed.folder, bed.folder / "sub"):
        with monkeypatch.context() as patch:
            patch.setattr("os.scandir", _refusing(bad))
            for _ in range(3):
                bed.scan()
            bed.walk()
        assert not ended
    bed.settle()
    bed.scan()
    assert ended
    assert bed.content("sub/x") == b"content"


def _refusing(bad: Path) -> object:
    import os  # noqa: PLC0415 before it is patched

    scandir, inode = os.scandir, bad.stat().st_ino

    def refused(fd: int) -> object:
        if os.fstat(fd).st_ino == inode:
            raise PermissionError(13, "Permission denied")
        return scandir(fd)

    return refused

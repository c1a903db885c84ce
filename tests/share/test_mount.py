"""The share: is it there, is it the same one, what time has its server; and the watchdog that ends the process."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.programs import TOP
from uploader import share as module
from uploader.errors import ShareLost
from uploader.share.mount import Share

WATCHED = """
import os, sys, time
from pathlib import Path
from uploader.telemetry import instruments
from uploader.share.mount import Share
telemetry.configure("uploader")
share = Share(Path(sys.argv[1]), 0, float(sys.argv[2]))
share.watch()
{then}
print("armed", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


@pytest.fixture
def share(root: Path) -> Iterator[Share]:
    share = Share(root, 0, 5)
    yield share
    share.close()


def failing(number: int) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


def watched(root: Path, timeout: float, then: str) -> subprocess.Popen[str]:
    """Run a watched process that does `then`, and sleeps for an hour if nothing ends it."""
    argv = [sys.executable, "-c", WATCHED.format(then=then), str(root), str(timeout)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=TOP)


def ended(root: Path, timeout: float, then: str) -> tuple[int, str]:
    """Run a watched process; return its exit code and what it logged."""
    with watched(root, timeout, then) as process:
        try:
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, said


def test_a_share_that_answers_is_young(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 7))
    assert 7 <= share.age() < 60 * 60
    share.probe()
    assert share.age() == 0


def test_the_servers_time_is_that_of_a_file_we_touch(share: Share, root: Path) -> None:
    first = share.server_time()
    (root / "x").touch()
    assert first <= (root / "x").stat().st_mtime_ns <= share.server_time()
    (root / ".nfs-watch/clock-0").unlink()
    assert share.server_time() >= first


def test_our_own_clock_does_not_matter(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert share.server_time() > 1_700_000_000 * 10**9


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EACCES])
def test_a_probe_that_fails_is_a_lost_share(share: Share, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", failing(number))
    with pytest.raises(ShareLost, match=os.strerror(number)):
        share.probe()


def test_one_bad_file_is_no_lost_share(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another client has deleted answers ESTALE too (I7)."""
    share.judge(OSError(errno.ESTALE, "stale"))
    share.judge(OSError(errno.EACCES, "no"))
    monkeypatch.setattr(os, "statvfs", failing(errno.ESTALE))
    share.judge(OSError(errno.ENOSPC, "full"))
    with pytest.raises(ShareLost):
        share.judge(OSError(errno.EIO, "I/O"))


def test_another_folder_at_the_same_path_is_a_lost_share(share: Share, root: Path) -> None:
    """Unmounted: what lies below the mount point is empty, and is not the share (I6)."""
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    with pytest.raises(ShareLost, match="no longer the share"):
        share.probe()
    root.rmdir()
    with pytest.raises(ShareLost, match="No such file"):
        share.probe()
    root.with_name("elsewhere").rename(root)
    share.probe()


def test_a_share_that_cannot_be_written_fails_at_the_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in each scan, with words about the session's folder."""
    monkeypatch.setattr(os, "utime", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        Share(root, 0, 5)


def test_a_probe_that_hangs_ends_the_process(root: Path) -> None:
    """The thread that asks is stuck in the kernel; the other one looks at how long ago it answered."""
    code, said = ended(root, 1, "os.statvfs = lambda _: time.sleep(3600)")
    assert code == 75
    assert "has not answered for" in said


def test_a_share_that_fails_ends_the_process(root: Path) -> None:
    code, said = ended(root, 3600, "os.rename(sys.argv[1], sys.argv[1] + '-gone')")
    assert code == 75
    assert "does not answer" in said


def test_a_blocked_stdout_does_not_keep_the_process(root: Path) -> None:
    """Whoever reads the log hangs and the pipe is full: the reason is lost, the end is not."""
    then = "os.statvfs = lambda _: time.sleep(3600); print('armed', flush=True); os.write(1, b'x' * 2**20)"
    process = watched(root, 1, then)
    assert process.stdout is not None
    assert process.stdout.readline()
    try:
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.stdout.close()

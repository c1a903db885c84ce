"""Whether the share is there and still the same, what time its server has, and the watchdog that ends the process."""

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
from uploader.errors import ShareLost
from uploader.share import mount as module
from uploader.share.mount import Share

WATCHED = """
import os, sys, time
from pathlib import Path
from uploader.telemetry import instruments
from uploader.share.mount import Share
instruments.configure("uploader")
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
    """The age is the time since the last answer, and each probe that succeeds sets it to zero."""
    now = time.monotonic()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 7))
    assert 7 <= share.age() < 60 * 60
    share.probe()
    assert share.age() == 0


def test_the_servers_time_is_that_of_a_file_we_touch(share: Share, root: Path) -> None:
    """Times of files and of the server come from one clock; the touched file may be deleted at any time."""
    first = share.server_time()
    (root / "x").touch()
    assert first <= (root / "x").stat().st_mtime_ns <= share.server_time()
    (root / ".nfs-watch/clock-0").unlink()
    assert share.server_time() >= first


def test_our_own_clock_does_not_matter(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Jetson without a battery-backed clock starts in 1970 and must not take files for settled or unsettled."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert share.server_time() > 1_700_000_000 * 10**9


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EACCES])
def test_a_probe_that_fails_is_a_lost_share(share: Share, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is named, for the operator reads it in the process's last log line."""
    monkeypatch.setattr(os, "statvfs", failing(number))
    with pytest.raises(ShareLost, match=os.strerror(number)):
        share.probe()


def test_one_bad_file_is_no_lost_share(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another client has deleted answers ESTALE too (I7): only a probe decides."""
    share.judge(OSError(errno.ESTALE, "stale"))
    share.judge(OSError(errno.EACCES, "no"))
    monkeypatch.setattr(os, "statvfs", failing(errno.ESTALE))
    share.judge(OSError(errno.ENOSPC, "full"))
    with pytest.raises(ShareLost):
        share.judge(OSError(errno.EIO, "I/O"))


def test_another_folder_at_the_same_path_is_a_lost_share(share: Share, root: Path) -> None:
    """After an unmount an empty folder lies at the mount point; that is not the share (I6)."""
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
    """The operator is told at once, and not in each scan by an error about a session's folder."""
    monkeypatch.setattr(os, "utime", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        Share(root, 0, 5)


def test_a_probe_that_hangs_ends_the_process(root: Path) -> None:
    """The probing thread is stuck in the kernel; a second one sees how long ago the share answered."""
    code, said = ended(root, 1, "os.statvfs = lambda _: time.sleep(3600)")
    assert code == 75
    assert "has not answered for" in said


def test_a_share_that_fails_ends_the_process(root: Path) -> None:
    """Exit code 75 has Kubernetes start the pod again, which mounts the share again."""
    code, said = ended(root, 3600, "os.rename(sys.argv[1], sys.argv[1] + '-gone')")
    assert code == 75
    assert "does not answer" in said


def test_a_blocked_stdout_does_not_keep_the_process(root: Path) -> None:
    """When the reader of the log hangs and the pipe is full, the reason is lost, but the process ends."""
    then = "os.statvfs = lambda _: time.sleep(3600); print('armed', flush=True); os.write(1, b'x' * 2**20)"
    process = watched(root, 1, then)
    assert process.stdout is not None
    assert process.stdout.readline()
    try:
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.stdout.close()

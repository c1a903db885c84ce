"""Files below `.nfs-watch` are read strictly: whatever somebody puts there hangs nothing and fills no memory."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.need import absent
from uploader.share import entry


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"{}")
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def device(path: Path) -> None:
    if os.geteuid():
        absent("only root makes devices")
    os.mknod(path, 0o20666, os.makedev(1, 5))


ODD: list[Callable[[Path], None]] = [pipe, endless, link, dangling, listener, device, Path.mkdir]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe without a writer blocks an ordinary open for ever, and /dev/zero never ends."""
    make(tmp_path / "x")
    with pytest.raises(OSError, match="not a regular file but a") as refused:
        entry.read(str(tmp_path / "x"))
    assert refused.value.errno == errno.EINVAL
    assert refused.value.errno in entry.UNFIT


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """64 KiB are far more than any record has; what is longer is refused without reading all of it."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * entry.MOST)
    assert entry.read(str(path)) == b"x" * entry.MOST
    os.truncate(path, 2**40)
    with pytest.raises(OSError, match="larger than 65536 bytes") as refused:
        entry.read(str(path))
    assert refused.value.errno in entry.UNFIT
    path.unlink()
    assert entry.read(str(path)) is None


@pytest.mark.parametrize("make", [link, dangling, pipe, Path.mkdir])
def test_touching_reaches_nothing_beyond_the_name(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The server's time is learned from whatever has the name; a link's target is neither made nor touched."""
    make(tmp_path / "x")
    target = tmp_path / "target"
    if target.exists():
        os.utime(target, (1, 1))
    assert entry.touched(str(tmp_path / "x")) == (tmp_path / "x").lstat().st_mtime_ns
    assert not target.exists() or target.stat().st_mtime == 1
    assert not (tmp_path / "nowhere").exists()

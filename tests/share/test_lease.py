"""Who has a file open for writing, as far as leases tell; and what else the share's file system can tell."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.need import absent
from tests.support.programs import TOP
from uploader.share import filesystem
from uploader.share.filesystem import tried
from uploader.share.lease import held_open
from uploader.share.statx import born


@pytest.fixture
def path(tmp_path: Path) -> Path:
    if not tried(str(tmp_path), 0).leases:
        absent("the file system of the tests keeps no leases")
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture
def reader(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def test_nobody_has_it_open(reader: int) -> None:
    assert held_open(reader) is False
    assert fcntl.fcntl(reader, fcntl.F_GETLEASE) == fcntl.F_UNLCK, "given back"
    os.close(reader)


def test_a_descriptor_for_writing_is_told_and_one_for_reading_is_not(path: Path, reader: int) -> None:
    with path.open("rb"):
        assert held_open(reader) is False
    with path.open("r+b"):
        assert held_open(reader) is True
    assert held_open(reader) is False
    os.close(reader)


def test_a_shared_mapping_is_told_when_its_descriptor_is_closed(path: Path, reader: int) -> None:
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 4096)
    assert held_open(reader) is True
    mapping.close()
    assert held_open(reader) is False
    os.close(reader)


def test_where_there_are_no_leases_nobody_can_tell() -> None:
    fd, other = os.pipe()
    assert held_open(fd) is None
    os.close(fd)
    os.close(other)


def test_files_are_tried_without_a_trace(path: Path) -> None:
    found = tried(str(path.parent), 0)
    assert found.leases
    assert not found.remote
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_what_a_killed_process_left_of_its_trial_is_removed(tmp_path: Path) -> None:
    """That of another ordinal may be in use."""
    for name in ("trial-1-left", "trial-12-used", "clock-1"):
        (tmp_path / name).touch()
    tried(str(tmp_path), 1)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["clock-1", "trial-12-used"]


def test_an_nfs_client_is_not_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses a lease whenever it holds no delegation."""
    monkeypatch.setattr(filesystem, "_kind", lambda _: "nfs4")
    found = tried(str(path.parent), 0)
    assert found.remote
    assert not found.leases


def test_the_birth_time_tells_files_apart_and_stays(tmp_path: Path) -> None:
    if not tried(str(tmp_path), 0).births:
        absent("the file system of the tests keeps no birth times")
    births = []
    for _ in range(2):
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        first = born(fd)
        os.write(fd, b"content")
        os.utime(fd, (1, 1))
        assert born(fd) == first
        births.append(first)
        os.close(fd)
        (tmp_path / "file").unlink()
        time.sleep(0.05)  # births are as coarse as the kernel's clock: 10 ms at most
    assert births[0] != births[1]


HOLDER = """
import fcntl, os, signal, sys
from uploader.share import lease
signal.signal(signal.SIGIO, signal.SIG_DFL)  # the tests' process hands its own on
{ignore}
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("held", flush=True)
sys.stdin.readline()
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""


@pytest.mark.parametrize(("ignore", "code"), [("lease.ignore_signal()", 0), ("", -signal.SIGIO)])
def test_a_writer_that_comes_while_a_lease_is_held_does_not_end_the_process(path: Path, ignore: str, code: int) -> None:
    """Without the program's own precaution the kernel's signal does."""
    argv = [sys.executable, "-c", HOLDER.format(ignore=ignore), str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):  # it would have to wait
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        holder.communicate("go on\n" if not code else None)
        assert holder.returncode == code


PROGRAM = """
import signal
from uploader import __main__ as program
signal.signal(signal.SIGIO, signal.SIG_DFL)
def load():
    print(signal.getsignal(signal.SIGIO) is signal.SIG_IGN)
    raise SystemExit
program.load = load
program.main()
"""


def test_the_program_ignores_the_signal() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr

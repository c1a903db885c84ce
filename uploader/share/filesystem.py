"""What the share's file system can tell of a file; docs/nfs.md has the table."""

import os
from contextlib import suppress
from dataclasses import dataclass
from tempfile import mkstemp

from uploader.share.lease import held_open
from uploader.share.statx import born

NETWORK = frozenset({"nfs", "nfs4"})
LOCAL = frozenset({"ext4", "xfs", "btrfs", "f2fs", "tmpfs"})


@dataclass(frozen=True, slots=True)
class FileSystem:
    """`kind`: its type; `leases`: it tells whether a file is open for writing; `births`: it tells when one was made."""

    kind: str
    leases: bool
    births: bool

    @property
    def remote(self) -> bool:
        """Whether another machine keeps it, so that this one may answer from its cache."""
        return self.kind in NETWORK

    @property
    def quick(self) -> bool:
        """Whether looking at an open file never waits, not even for a disk."""
        return self.kind in LOCAL

    def held_open(self, fd: int) -> bool | None:
        """Tell whether somebody can write to a file that is open for reading only; None when nobody can tell."""
        return held_open(fd) if self.leases else None


def tried(folder: str, ordinal: int) -> FileSystem:
    """Try with a file of ours in this folder what can be told. Raises OSError.

    What a process of this ordinal left, which was killed meanwhile, is removed.
    """
    mark = f"trial-{ordinal}-"
    for name in os.listdir(folder):
        if name.startswith(mark):
            _remove(f"{folder}/{name}")
    writer, path = mkstemp(prefix=mark, dir=folder)
    reader = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)  # its path may be gone: see _remove
    try:
        with open(writer, "wb"):
            refused = held_open(reader) is True
        granted = held_open(reader) is False
        kind = _kind(reader)
        return FileSystem(kind, refused and granted and kind not in NETWORK, born(reader) is not None)
    finally:
        os.close(reader)
        _remove(path)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):  # another process of this ordinal was faster
        os.unlink(path)


def _kind(fd: int) -> str:
    """Return the type of the file system of an open file, "unknown" when /proc does not tell.

    Found by the mount's number: the device that fstat names stands in no list of mounts for some (btrfs).
    """
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as about:
        mount = dict(line.split(":\t", 1) for line in about.read().splitlines() if ":\t" in line)["mnt_id"]
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            if line.split(" ", 1)[0] == mount:
                return line.partition(" - ")[2].split(" ", 1)[0]
    return "unknown"

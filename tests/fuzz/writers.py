"""Programs that write a file in place, and somebody who writes to a finished one."""

import mmap
import os
from pathlib import Path


class Writer:
    """Has a file open for writing. `content`: what is in it; `states`: what was in it before, too."""

    def __init__(self, target: Path, content: bytes) -> None:
        self.fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.content = content
        os.write(self.fd, content)
        self.states = [content]

    def write(self, more: bytes) -> None:
        """Append."""
        os.write(self.fd, more)
        self._has(self.content + more)

    def wrote(self, content: bytes) -> bool:
        """Tell whether this is what the file has held, or a beginning of that: it may be read while it grows."""
        return self.content.startswith(content) or content in self.states

    def gone(self) -> bool:
        """Tell whether the file has been deleted."""
        return os.fstat(self.fd).st_nlink == 0

    def close(self) -> None:
        os.close(self.fd)

    def _has(self, content: bytes) -> None:
        self.content = content
        self.states.append(content)


class Mapped(Writer):
    """Writes through a shared mapping, whose descriptor is closed: numpy.memmap, HDF5, LMDB."""

    def __init__(self, target: Path, content: bytes) -> None:
        super().__init__(target, content)
        self.mapping = mmap.mmap(self.fd, len(content))
        os.close(self.fd)
        self.fd = os.open(target, os.O_RDONLY)  # to see what becomes of it

    def write(self, more: bytes) -> None:
        """Store to the file's beginning, and to its end."""
        if size := min(len(more), len(self.content)):
            self.mapping[:size] = self.mapping[-size:] = more[:size]
        self._has(self.mapping[:])

    def wrote(self, content: bytes) -> bool:
        return content in self.states

    def close(self) -> None:
        self.mapping.close()
        super().close()


def rewrite(path: Path, content: bytes) -> None:
    """Write other content of the same length, and put the mtime back: `touch -r`, `rsync --inplace -t`."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

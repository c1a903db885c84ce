"""Writers that the times tell little of: through a mapping, with the mtime put back; and folders that get other names."""

import mmap
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from awscrt.checksums import crc64nvme

from tests.soak.content import BLOCK, Print, fingerprint, pieces
from tests.soak.ledger import Ledger

OPEN = 0.5  # seconds that a file is held open before it is written to: longer than any step of ours between look and deletion


def print_of(data: bytes) -> Print:
    """Return the fingerprint of content."""
    return tuple((len(data[at : at + BLOCK]), crc64nvme(data[at : at + BLOCK])) for at in range(0, len(data), BLOCK))


class Writers:
    """The writers of one session's folder."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.session = folder.name
        self.ledger = ledger

    def mapped(self, name: str, size: int, pause: float) -> None:
        """Touch every page of a new file through a mapping, close its descriptor, then fill it slowly."""
        path, target = f"{self.session}/{name}", self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as mapping:
            os.close(fd)
            mapping[:] = b"\xff" * size
            data = b"".join(pieces(path, 0, size))
            step = max(1, size // 8)
            for offset in range(0, size, step):
                if offset + step >= size:
                    version = self.ledger.finished(path, fingerprint(path, 0, size))
                mapping[offset : offset + step] = data[offset : offset + step]
                time.sleep(pause)
        self.ledger.counted["files written through a mapping"] += 1
        self.ledger.landed(path, version)

    def rewrite(self, name: str) -> None:
        """Write other content of the same length over the newest version, wherever it is by now; put the mtime back.

        Not when it has been deleted, or is not the newest.
        """
        path = f"{self.session}/{name}"
        for suffix in ("", ".processing", ".completed"):
            try:
                fd = os.open(self.folder / f"{name}{suffix}", os.O_RDWR)
            except FileNotFoundError:
                continue
            with open(fd, "r+b", buffering=0) as file:
                time.sleep(OPEN)
                before = os.fstat(fd)
                prints = self.ledger.files[path].prints
                if before.st_nlink and before.st_size >= 16 and print_of(file.read()) == prints[-1]:
                    version = len(prints)
                    data = b"".join(pieces(path, version, before.st_size))
                    file.seek(0)
                    file.write(data[: before.st_size // 2])
                    self.ledger.finished(path, fingerprint(path, version, before.st_size))
                    file.write(data[before.st_size // 2 :])
                    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
                    time.sleep(0.05)  # longer than a tick of the kernel's clock
                    self.ledger.landed(path, version)
                    self.ledger.counted["files rewritten with the mtime put back"] += 1
            return

    def renamed(self, old: str, new: str, names: list[str], move_in: Callable[[str, int], None], seed: float) -> None:
        """Let files arrive in a folder, and give that another name a little later, wherever the files are by then."""
        draw = random.Random(seed)
        for name in names:
            move_in(f"{old}/{name}", draw.randrange(16, 3 * BLOCK))
        time.sleep(draw.uniform(0, 3))
        for name in names:
            self.ledger.also(f"{self.session}/{old}/{name}", f"{self.session}/{new}/{name}")
        (self.folder / old).rename(self.folder / new)
        self.ledger.counted["folders renamed"] += 1

"""The works that are measured: files, endpoint, clients, goals. All clients take the same files from memory (tmpfs)."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.endpoint import Discard
from tests.bench.goals import (
    AZCOPY,
    MD5,
    OURS,
    RAW,
    RCLONE,
    STAGED,
    Goal,
    best_files_rate,
    cpu_a_file,
    faster,
    less_cpu,
    less_memory,
    near_limit,
    staging_costs,
)
from tests.bench.measured import Measured
from tests.bench.ours import ours
from tests.bench.peers import azcopy, rclone, size
from tests.bench.raw import large_rate, md5_rate
from tests.bench.row import Asked

MIB, GIB = 1 << 20, 1 << 30
Client = Callable[[Path, Path, Discard], Measured]


@dataclass(frozen=True)
class Work:
    """One row of the benchmark; `quick` reduces the amount."""

    name: str
    title: str
    count: int
    length: int
    clients: dict[str, Client]
    goals: list[Goal]
    tls: bool = True
    latency: float = 0.0
    distinct: int | None = None
    quick: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def made(self, asked: Asked) -> Iterator[Path]:
        """Make the files, and remove them at the end; more than `distinct` are made as links, to save memory."""
        count, length = self.count, self.length
        if asked.quick:
            count, length = self.quick.get("count", count), self.quick.get("length", length)
        folder = asked.scratch / "files"
        folder.mkdir()
        try:
            self._fill(folder, count, length)
            yield folder
        finally:
            shutil.rmtree(folder)

    def _fill(self, folder: Path, count: int, length: int) -> None:
        for index in range(count):
            path = folder / f"{index:06}.bin"
            if self.distinct and index >= self.distinct:
                os.link(folder / f"{index % self.distinct:06}.bin", path)
            else:
                fill(path, length)
        # A link made in the same tick of the clock as the last write would not show that the file is finished.
        time.sleep(0.1)


def fill(path: Path, length: int) -> None:
    """Write a file of random bytes."""
    with path.open("wb") as file:
        for at in range(0, length, MIB):
            file.write(os.urandom(min(MIB, length - at)))


def _raw(folder: Path, _: Path, endpoint: Discard) -> Measured:
    _files, content = size(folder)
    return Measured(content / large_rate(endpoint), 0, 0, 1, content)


def _md5(folder: Path, _scratch: Path, _: Discard) -> Measured:
    _files, content = size(folder)
    return Measured(content / md5_rate(), 0, 0, 1, content)


def _clients(*, md5: bool, raw: bool = True) -> dict[str, Client]:
    clients: dict[str, Client] = {
        OURS: partial(ours, md5=md5),
        AZCOPY: partial(azcopy, md5=md5),
        RCLONE: partial(rclone, md5=md5),
    }
    return clients | ({RAW: _raw} if raw else {}) | ({MD5: _md5} if raw and md5 else {})


def _small(latency: float, least: float) -> Work:
    return Work(
        f"small-{latency * 1000:.0f}",
        f"5,000 files of 20 kB, plain http, {latency * 1000:.0f} ms latency",
        5000,
        20_000,
        _clients(md5=True, raw=False),
        [best_files_rate(least), cpu_a_file(0.5), less_cpu(AZCOPY, 1.0)],
        tls=False,
        latency=latency,
        quick={"count": 1000},
    )


ONE = {"length": 512 * MIB}
WORKS = [
    Work(
        "large-md5",
        "one 2 GiB file, TLS, whole-file MD5",
        1,
        2 * GIB,
        _clients(md5=True),
        [faster(AZCOPY, 1.9), near_limit(0.9), less_cpu(AZCOPY, 0.42), less_memory(AZCOPY, 0.2)],
        quick=ONE,
    ),
    Work(
        "large",
        "one 2 GiB file, TLS, no whole-file MD5",
        1,
        2 * GIB,
        _clients(md5=False),
        [faster(AZCOPY, 2.5), less_cpu(AZCOPY, 0.4)],
        quick=ONE,
    ),
    Work(
        "four-md5",
        "four 1 GiB files, TLS, whole-file MD5",
        4,
        GIB,
        _clients(md5=True),
        [faster(AZCOPY, 2.5)],
        quick={"length": 256 * MIB},
    ),
    Work(
        "large-plain",
        "one 2 GiB file, plain http, no whole-file MD5",
        1,
        2 * GIB,
        _clients(md5=False),
        [faster(AZCOPY, 1.5)],
        tls=False,
        quick=ONE,
    ),
    _small(0.0, 0.65),
    _small(0.002, 1.0),
    _small(0.01, 2.0),
    _small(0.02, 4.0),
    Work(
        "staging",
        "ten 1 GiB files (names of four), TLS, whole-file MD5, with and without staging",
        10,
        GIB,
        {OURS: ours, STAGED: partial(ours, staging=True)},
        [staging_costs(1.1)],
        distinct=4,
        quick={"length": 128 * MIB},
    ),
]

"""What the upload of a file leaves in the memory that the machine keeps files in (the page cache)."""

import os
import shutil
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from tests.bench import report
from tests.bench.endpoint import discard
from tests.bench.goals import AZCOPY, OURS, RCLONE, known
from tests.bench.ours import ours
from tests.bench.peers import azcopy, rclone
from tests.bench.row import Asked, Row
from tests.bench.work import Client, fill

SIZE = 500_000_000
BEFORE = f"{OURS} before"
HEAD = """From a disk, plain http, whole-file MD5. Before each run the file is dropped from memory; afterwards fincore counts what is there.
"""


def measure(asked: Asked) -> list[str]:
    """Let the clients take turns on a file that is on a disk."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="nfs-watch-bench-"))  # /tmp may be memory
    clients: dict[str, Client] = {OURS: ours, AZCOPY: partial(azcopy, md5=True), RCLONE: partial(rclone, md5=True)}
    if asked.before:
        clients[BEFORE] = partial(ours, tree=asked.before)
    grown: dict[str, list[int]] = {name: [] for name in clients}
    took: dict[str, list[float]] = {name: [] for name in clients}
    try:
        (folder / "files").mkdir()
        path = folder / "files/file.bin"
        fill(path, SIZE)
        with discard(folder, tls=False) as endpoint:
            for _ in range(asked.repeats):
                for name, client in clients.items():
                    _drop(path)
                    before = _resident(path)
                    took[name].append(client(folder / "files", folder, endpoint).wall)
                    grown[name].append(_resident(path) - before)
    finally:
        shutil.rmtree(folder)
    wall = {name: statistics.median(each) for name, each in took.items()}
    more = {name: statistics.median(each) for name, each in grown.items()}
    rows = [[name, f"{wall[name]:.2f}", f"{more[name] / 1e6:.1f}"] for name in clients]
    goals = [known("page cache grows by, MiB", more[OURS] / 2**20, most=64.0)]
    if asked.before:
        goals.append(known("time, of that before", wall[OURS] / wall[BEFORE], most=1.0))
    return [HEAD, *report.plain(["client", "wall s", "page cache grows by, MB"], rows), "", *report.goals(goals, {})]


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _resident(path: Path) -> int:
    """Return the bytes of a file that are in memory."""
    argv = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


ROW = Row("cache", "page cache after a file of 500 MB that was not in it", measure)

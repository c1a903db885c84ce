"""Files that another machine is still writing: never lost, ending up whole, and as far as can be seen never sent half.

The store is an endpoint that remembers every commit. Three protections hold, each with a case of its own here: readiness
(settle), the check before the commit, and the look before deletion. All writers begin together, to save time.
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.endpoint.server import Endpoint
from tests.nfs import bed
from tests.nfs.bed import HARD, SOFT, V4, Site
from tests.nfs.ledger import Ledger, holds, lengths
from tests.support.programs import Server

GUEST = "alive"
WRITE = Path(__file__).parent / "write.py"
SESSIONS = ("slow", "pausing", "steady", "frozen", "large")
# Longer than a client holds data back (30 s + 5 s), which is the pause that the look before deletion has to survive.
RETENTION = 40
# A writer that pauses for a second looks finished only where this machine let it stand still for twenty times that.
SETTLE = 20
MANY = 10_000
LARGE = 1 << 30


@dataclass
class Work:
    """The uploader's site and store, and what the writers of the cases write."""

    site: Site
    server: Server
    ledger: Ledger
    writers: dict[str, subprocess.Popen[bytes]]
    began: float

    def write(self, folder: Path, session: str, chunk: int, count: int, pause: float, *sync: str) -> None:
        """Start a writer."""
        arguments = [str(value) for value in (chunk, count, pause, *sync)]
        argv = [sys.executable, "-S", str(WRITE), str(folder / session / "a.bin"), str(self.copy(session)), *arguments]
        self.writers[session] = subprocess.Popen(argv)

    def copy(self, session: str) -> Path:
        return bed.GUEST / f"copy-{session}"

    def whole(self, session: str) -> bool:
        """Tell whether the store has the session's file as it was written."""
        commits = self.ledger.commits.get(f"{session}/a.bin", [])
        return bool(commits) and holds(commits[-1], self.copy(session))

    def ends_whole(self, session: str) -> list[int]:
        """Wait for the writer and then for the file; return the lengths of all commits on the way."""
        if session in self.writers:
            assert self.writers[session].wait(bed.LONG) == 0
        bed.until(lambda: self.whole(session), f"{session}/a.bin to be whole in the store")
        return lengths(self.ledger.commits, f"{session}/a.bin")


@pytest.fixture(scope="module")
def work() -> Iterator[Work]:
    ledger = Ledger()
    site = Site("writers", f"{V4},{SOFT}").make(*SESSIONS)
    same_machine = bed.mount(bed.MOUNTS / "same-machine", f"share/{site.name}", site.machine, f"{V4},{HARD},noac")
    with Endpoint(ledger) as endpoint:
        server = site.uploader(
            endpoint.connection_string, max_sessions=9, settle=SETTLE, retention=RETENTION, sweep_interval=1
        )
        with bed.up(server):
            for session in SESSIONS:
                bed.start(server, session)
            work = Work(site, server, ledger, {}, time.monotonic())
            work.write(site.producer, "slow", 1000, 60, 1)
            work.write(site.producer, "steady", 100_000, 15, 1, "sync")
            work.write(same_machine, "frozen", 1000, 45, 1, "sync")
            yield work
            for writer in work.writers.values():
                writer.kill()
                writer.wait()
    bed.unmount(same_machine)


pytestmark = pytest.mark.usefixtures("producer")


def test_a_file_that_grows_all_the_time_is_sent_once_and_whole(work: Work) -> None:
    """A file that changes more often than every `settle` seconds is left alone until it stops."""
    assert work.ends_whole("steady") == [1_500_000]


def test_two_mounts_on_one_machine_hide_a_growing_file(work: Work) -> None:
    """The blind spot of NFSv4 delegations: the uploader's own mount says that nothing changes.

    The claim's rename makes the server tell the truth, so that even then nothing half-written is sent.
    """
    name = "frozen/a.bin"
    behind, delegated = [], False
    while work.writers["frozen"].poll() is None:
        try:
            fd = os.open(work.site.root / name, os.O_RDONLY)
        except FileNotFoundError:
            time.sleep(0.2)
            continue
        real = os.stat(work.site.server / name).st_size if (work.site.server / name).exists() else 0
        behind.append(real - os.fstat(fd).st_size)
        os.close(fd)
        states = bed.run("sh", "-c", "cat /proc/fs/nfsd/clients/*/states").splitlines()
        delegated |= any("deleg" in state and "frozen/a.bin" in state for state in states)
        time.sleep(0.5)
    print(f"the mount was behind by up to {max(behind)} bytes")
    assert delegated
    assert max(behind) > 1000
    assert work.ends_whole("frozen") == [45_000]


def test_a_file_whose_writer_pauses_is_not_deleted_half(work: Work) -> None:
    """A pause longer than `settle` makes half a file look finished: the look before the deletion must see the rest.

    This writer pauses until its half is in the store, and again until the next part is.
    """
    with (
        (work.site.producer / "pausing/a.bin").open("wb", buffering=0) as file,
        work.copy("pausing").open("wb") as copy,
    ):
        for part in range(1, 4):
            data = random.randbytes(100_000)
            file.write(data)
            copy.write(data)
            os.fsync(file.fileno())
            if part < 3:
                bed.until(lambda part=part: len(work.ledger.commits.get("pausing/a.bin", [])) == part, "what is there")
    assert work.ends_whole("pausing") == [100_000, 200_000, 300_000]


def test_a_file_that_changes_while_it_is_read_is_not_committed() -> None:
    """Without the check before the commit the blob would be a mixture that never existed."""
    ledger, site = Ledger(), Site("changing", f"{V4},{SOFT}").make("changing")
    content = bytearray(random.randbytes(12 << 20))
    settings = {"block_size": 1 << 20, "memory": 4 << 20}
    ledger.go_on.clear()
    with Endpoint(ledger) as endpoint:
        server = site.uploader(endpoint.connection_string, **settings)
        with bed.up(server):
            bed.start(server, "changing")
            with (site.producer / "changing/a.bin").open("wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())
                bed.until(lambda: "changing/a.bin" in ledger.begun, "the first block")
                for offset in (0, len(content) - 1000):
                    content[offset : offset + 1000] = b"\0" * 1000
                    os.pwrite(file.fileno(), b"\0" * 1000, offset)
                os.fsync(file.fileno())
                ledger.go_on.set()
            (bed.GUEST / "copy-changing").write_bytes(content)
            bed.until(lambda: "changing/a.bin" in ledger.commits, "a commit")
    assert [holds(commit, bed.GUEST / "copy-changing") for commit in ledger.commits["changing/a.bin"]] == [True]
    assert bed.events(server, "file.given_back")


def test_a_plain_cp_of_1_gib_ends_up_whole(work: Work) -> None:
    """The most common producer, which writes under the final name for many seconds."""
    source = work.copy("large")
    with source.open("wb") as file:
        for offset in range(0, LARGE, 64 << 20):  # a sparse file, each part of it with a mark of its own
            file.seek(offset)
            file.write(random.randbytes(100_000))
        file.truncate(LARGE)
    target = work.site.producer / "large/a.bin"
    began = time.monotonic()
    work.writers["large"] = subprocess.Popen(["cp", "--sparse=never", str(source), str(target)])
    sent = work.ends_whole("large")
    print(f"{time.monotonic() - began:.0f} s, committed lengths: {sent}")


def test_a_slow_append_of_a_minute_ends_up_whole(work: Work) -> None:
    """The writer's kernel holds data back for 30 s at a time: the file looks empty, then half, then finished."""
    sent = work.ends_whole("slow")
    print(f"{time.monotonic() - work.began:.0f} s, committed lengths: {sent}")


def test_ten_thousand_files_are_all_found_and_none_is_sent_twice() -> None:
    """A burst from another machine, with few connections, as the guest has one processor."""
    ledger, site = Ledger(), Site("many", f"{V4},{SOFT}").make("many")
    numbers = bed.GUEST / "numbers"
    numbers.write_text("".join(f"{number}\n" for number in range(MANY)))
    with Endpoint(ledger) as endpoint:
        server = site.uploader(endpoint.connection_string, connections=4, content_md5=False)
        with bed.up(server):
            bed.start(server, "many")
            began = time.monotonic()
            bed.run("split", "-l1", "-a4", "-d", "--additional-suffix=.bin", numbers, site.producer / "many/f")
            print(f"written after {time.monotonic() - began:.0f} s")
            with contextlib.suppress(AssertionError):
                bed.until(lambda: len(ledger.commits) == MANY, "all files to be in the store", 600)
            assert len(ledger.commits) == MANY
            print(f"in the store after {time.monotonic() - began:.0f} s")
    assert {name for name, commits in ledger.commits.items() if len(commits) > 1} == set()

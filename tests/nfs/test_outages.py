"""The server stops during a scan, a read, a rename and a sweep, with `softerr` and with `hard` mounts.

Eight uploaders, each held in one system call when the server stops, share one outage. The call goes to the dead server.
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.nfs import bed
from tests.nfs.bed import HARD, SOFT, V4, Site
from tests.support.programs import Server

GUEST = "dying"
SMALL, LARGE = 20, 24 << 20
# moment: the system call that is held, and the end of the name that it is done to
MOMENTS = {
    "scan": ("scandir", "/scan"),
    "read": ("preadv", "large.bin.processing"),
    "rename": ("rename", "file3.bin.processing"),
    "sweep": ("unlink", ".completed"),
}
MOUNTS = {"softerr": SOFT, "hard": HARD}
# One RPC of the softerr mount gives up after 6 s, so that an error ends this process and the watchdog's clock the other.
TIMEOUTS = {"softerr": 15, "hard": 10}
FAST = {
    "extensions": ".bin",
    "scan_interval": 0.5,
    "settle": 1,
    "retention": 1,
    "sweep_interval": 0.5,
    "block_size": 1 << 20,
    "memory": 4 << 20,
}


@dataclass
class Case:
    """One uploader in the outage, and what was seen of it. Times in seconds since the server stopped."""

    site: Site
    session: str
    server: Server
    flags: Path
    expected: dict[str, bytes]
    timeout: float
    answers: list[tuple[float, float]] = field(default_factory=list)  # when /livez was asked, how long it took
    gone: float = 0
    code: int | None = None
    ends: dict[str, Any] = field(default_factory=dict)  # the log's line
    decided: float = 0
    back: float = 0  # when the server was started again
    lost: set[str] = field(default_factory=set)  # files that were nowhere after the outage

    def end(self, stopped: float) -> None:
        """Note the process's end."""
        assert self.server.process
        self.code, self.gone = self.server.process.returncode, bed.now() - stopped
        self.ends = bed.events(self.server, "process.ends")[0]
        self.decided = datetime.fromisoformat(self.ends["time"]).timestamp() - stopped

    @property
    def caught(self) -> bool:
        """Whether the moment's call went to the dead server and did not succeed."""
        return (self.flags / "sent").exists() and not (self.flags / "done").exists()

    def has_decided(self) -> bool:
        """Tell whether it has said why it ends."""
        return bool(bed.events(self.server, "process.ends"))

    def look(self, stored: set[str]) -> None:
        """Find out what is neither on the share, under one of its names, nor in the store."""
        there = {Path(name).name.removesuffix(".processing").removesuffix(".completed") for name in self.site.files()}
        self.lost = set(self.expected) - there - stored


def make(azure: str, moment: str, kind: str) -> Case:
    """Prepare a site with files, and its uploader, which is held in the moment's call."""
    site = Site(f"outage-{moment}-{kind}", f"{V4},{MOUNTS[kind]}").make(moment)
    names = {f"file{number}.bin": 1000 for number in range(SMALL)} | {"large.bin": LARGE}
    expected = {f"{name}": random.randbytes(size) for name, size in names.items()}
    session = f"{moment}-{kind}"
    (site.server / moment).rename(site.server / session)
    for name, content in expected.items():
        (site.server / session / name).write_bytes(content)
    if moment == "scan":
        for number in range(5000):  # a listing of several replies; none of these is eligible
            (site.server / session / f"other-{number:0100}.dat").touch()
    server = site.uploader(azure, **FAST, nfs_timeout=TIMEOUTS[kind])
    call, suffix = MOMENTS[moment]
    flags = bed.held(server, call, suffix if moment != "scan" else f"/{session}")
    return Case(site, session, server, flags, expected, TIMEOUTS[kind])


def knock(cases: list[Case], stopped: float, stop: threading.Event) -> None:
    """Ask every process that is alive for /livez, twice a second."""
    with httpx.Client(timeout=30) as client:
        while not stop.wait(0.5):
            for case in cases:
                asked = bed.now()
                try:
                    client.get(f"{case.server.url}/livez")
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    continue  # it has ended
                except httpx.TimeoutException:
                    pass
                case.answers.append((asked - stopped, bed.now() - asked))


def outlive(cases: list[Case]) -> None:
    """Stop the server, let the held calls go to it, and wait until all processes say why they end; then bring it back.

    Those on a hard mount cannot be gone before.
    """
    stopped, stop = bed.now(), threading.Event()
    knocking = threading.Thread(target=knock, args=(cases, stopped, stop))
    bed.stop_serving()
    knocking.start()
    for case in cases:
        (case.flags / "go").touch()

    def decided() -> bool:
        return all(case.has_decided() for case in cases)

    with contextlib.suppress(AssertionError):  # each case says so itself
        bed.until(decided, "all processes to say why they end")
    stop.set()
    knocking.join()
    for case in cases:
        case.back = bed.now() - stopped
    bed.serve()

    def ended() -> bool:
        for case in cases:
            assert case.server.process
            if case.code is None and case.server.process.poll() is not None:
                case.end(stopped)
        return all(case.code is not None for case in cases)

    with contextlib.suppress(AssertionError):
        bed.until(ended, "all processes to be gone")


@pytest.fixture(scope="module")
def outage(azure: str) -> Iterator[dict[tuple[str, str], Case]]:
    """Let the server die under all uploaders, wait for their ends, bring it back and start them again.

    Without delegations a file that is open has to be closed at the server, for which the kernel holds the process.
    """
    bed.run("sysctl", "fs.leases-enable=0")
    cases = {(moment, kind): make(azure, moment, kind) for moment in MOMENTS for kind in MOUNTS}
    every = list(cases.values())
    with bed.up(*(case.server for case in every)):
        for case in every:
            bed.start(case.server, case.session)
        for case in every:
            bed.until(lambda case=case: (case.flags / "held").exists(), f"{case.session} to be held")
        outlive(every)
    blobs = bed.Blobs(azure)
    for case in every:
        case.look(blobs.names(case.session))
        case.server = case.site.uploader(azure, **FAST)
    with bed.up(*(case.server for case in every)):
        yield cases


Outage = dict[tuple[str, str], Case]
both = pytest.mark.parametrize("kind", MOUNTS)
every_moment = pytest.mark.parametrize("moment", MOMENTS)


@both
@every_moment
def test_the_process_ends_with_75_when_the_server_stops_in_a(outage: Outage, moment: str, kind: str) -> None:
    """Kubernetes replaces the pod; the process decides while the server is still away."""
    case = outage[moment, kind]
    assert case.code == 75, "the process did not end"
    print(f"decided after {case.decided:.1f} s, gone after {case.gone:.1f} s: {case.ends['reason']}")
    assert case.caught, f"no thread was in the middle of a {moment}"
    assert case.ends["exit_code"] == 75
    assert case.decided < case.back, "it waited for the server"


@both
@every_moment
def test_livez_answers_while_nfs_hangs_in_a(outage: Outage, moment: str, kind: str) -> None:
    """Each question in the first half of the outage is answered before its end, so no answer waits for NFS."""
    case = outage[moment, kind]
    answers = [(asked, took) for asked, took in case.answers if asked < case.decided / 2]
    print(f"{len(answers)} answers, the slowest after {max(took for _, took in answers) * 1000:.0f} ms")
    # Once it has decided to end it answers nobody, even while the kernel holds what is left of it.
    assert all(asked + took < case.decided for asked, took in answers)


@both
@every_moment
def test_nothing_is_lost_when_the_server_stops_in_a(outage: Outage, azure: str, moment: str, kind: str) -> None:
    """After the outage every file is in the store, whole, and none was lost by a half-done call."""
    case = outage[moment, kind]
    blobs = bed.Blobs(azure)
    assert case.lost == set()
    bed.until(lambda: blobs.names(case.session) == set(case.expected), "all blobs")
    for name, content in case.expected.items():
        assert blobs.content(f"{case.session}/{name}") == content

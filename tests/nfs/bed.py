"""Inside the guest: the server, mounts of its share from several machines, and uploaders on them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.programs import Server, shard, wait_for

GUEST = Path(os.environ.get("NFS_WORK", "/nonexistent")) / "guest"
EXPORT = GUEST / "export"  # the server's own view of what it exports
SHARE = EXPORT / "share"
MOUNTS = GUEST / "mounts"
PRODUCER = MOUNTS / "producer"  # the whole share, as another machine has it
ADDRESSES = {"uploader": "10.0.1.1", "producer": "10.0.2.1", "proxied": "10.0.3.1", "server": "127.0.0.1"}
V4 = "vers=4.2"
V3 = "vers=3,nolock,proto=tcp"
USUAL = "retry=0,actimeo=1,lookupcache=positive,nosuid,nodev,noexec,nosharecache"
SOFT = f"softerr,timeo=20,retrans=1,{USUAL}"
HARD = f"hard,{USUAL}"
NFS_TIMEOUT = 15  # seconds, where the share is to go; elsewhere a slow guest must not pass for a lost share
LONG = 600  # seconds; bounds a hang only, in a guest with one slow processor


def run(*argv: str | Path) -> str:
    """Run a program of the system and return what it printed."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def serve() -> None:
    """Start the NFS server."""
    run("rpc.nfsd", "-V", "4.2", "4")


def stop_serving() -> None:
    """Stop the NFS server: clients are refused."""
    run("rpc.nfsd", "0")


def mount(folder: Path, path: str, machine: str, options: str) -> Path:
    """Mount a folder of the export at `folder`, as this machine does."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, top = ("nfs4", "") if V4 in options else ("nfs", str(EXPORT))
    enter = [] if machine == "server" else ["nsenter", f"--net=/run/netns/{machine}", f"--uts=/run/uts-{machine}"]
    run(*enter, "mount", "-t", kind, "-o", options, f"{ADDRESSES[machine]}:{top}/{path}", folder)
    return folder


def unmount(folder: Path) -> None:
    """Unmount it, even while it is in use."""
    run("umount", "-l", folder)


@dataclass
class Site:
    """A folder of the share, as the server, the uploader's machine and the producer's machine see it.

    Without mount options the uploader gets the server's own folder.
    """

    name: str
    options: str = ""
    machine: str = "uploader"
    export: str = "share"

    @property
    def server(self) -> Path:
        return EXPORT / self.export / self.name

    @property
    def root(self) -> Path:
        return MOUNTS / self.name

    @property
    def producer(self) -> Path:
        return PRODUCER / self.name

    def make(self, *sessions: str) -> "Site":
        """Make the folder with a folder for each of these sessions, and mount it."""
        for session in sessions:
            (self.server / session).mkdir(parents=True)
        if self.options:
            self.mount()
        return self

    def mount(self) -> None:
        """Mount the folder as the uploader's machine does."""
        mount(self.root, f"{self.export}/{self.name}", self.machine, self.options)

    def uploader(self, connection: str, **settings: object) -> Server:
        """Make an uploader on the folder, not started yet, with the product's defaults but a long time-out."""
        defaults = {"scan_interval": 2, "settle": 5, "retention": 60, "sweep_interval": 5, "nfs_timeout": LONG}
        log = GUEST / f"log-{self.name}"
        log.mkdir(exist_ok=True)
        return shard(log, self.root if self.options else self.server, connection, 0, **{**defaults, **settings})

    def files(self) -> set[str]:
        """Return all files in the folder, as the server sees it, without the service's own."""
        inside = (path.relative_to(self.server) for path in self.server.rglob("*") if path.is_file())
        return {str(path) for path in inside if not str(path).startswith(".nfs-watch")}


def calls(root: Path, column: int = 0) -> Counter[str]:
    """Return how often each operation was sent to the server for this mount; column -1: how often it was refused."""
    ours = Path("/proc/self/mountstats").read_text().split(f" mounted on {root} ")[1].split("\ndevice ")[0]
    lines = (line.split() for line in ours.partition("per-op statistics\n")[2].splitlines())
    return Counter({words[0].rstrip(":"): int(words[1:][column]) for words in lines if words})


def held(server: Server, call: str, suffix: str) -> Path:
    """Let this uploader hold a system call (hold.py); return the folder with its flags."""
    flags = server.output.parent / "flags"
    flags.mkdir(exist_ok=True)
    server.argv = [sys.executable, str(Path(__file__).parent / "hold.py"), call, suffix, str(flags)]
    return flags


def start(server: Server, session: str, **body: object) -> None:
    """Start a session."""
    answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": session, **body}, timeout=LONG)
    assert answer.status_code == 201, answer.text


def status(server: Server, session: str) -> dict[str, Any]:
    """Return a session's status."""
    answer = httpx.get(f"{server.url}/v1/watch/status", params={"session": session}, timeout=LONG)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["sessions"][0]
    return found


def events(server: Server, name: str = "") -> list[dict[str, Any]]:
    """Return the log's lines of this event, or all lines."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if not name or line["event"] == name]


def until(condition: Any, what: str, timeout: float = LONG) -> Any:
    """Wait with little load, as the guest has one processor."""
    return wait_for(condition, what, timeout, interval=0.2)


@contextlib.contextmanager
def up(*servers: Server) -> Iterator[None]:
    """Run these programs for a while; they start at the same time."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            until(lambda server=server: server.answers("/readyz"), "an uploader to be ready")
        yield
    finally:
        for server in servers:
            server.kill()


def now() -> float:
    """Return the time as the logs have it."""
    return time.time()


def left_plain(path: Path) -> float:
    """Wait until a file no longer has its plain name, and return the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() - began < LONG:
        if not path.exists():
            return time.monotonic() - began
        time.sleep(0.005)
    raise AssertionError(f"{path.name} was not claimed within {LONG} s")


class Blobs:
    """What is in the store's container, as Azure's own client sees it."""

    def __init__(self, connection: str) -> None:
        from azure.storage.blob import ContainerClient  # noqa: PLC0415 slow, and not all cases need it

        self.container = ContainerClient.from_connection_string(connection, "uploads")

    def names(self, session: str) -> set[str]:
        """Return the blobs' names below the session."""
        return {
            name.removeprefix(f"{session}/") for name in self.container.list_blob_names(name_starts_with=f"{session}/")
        }

    def content(self, name: str) -> bytes:
        """Return a blob's content."""
        return self.container.download_blob(name).readall()

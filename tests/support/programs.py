"""The real programs as processes on 127.0.0.1: Azurite, shards and a router; each is ended by its own id."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx

HANG = 300  # seconds; bounds a hang only: a loaded machine or a guest kernel may take minutes to start a program
TOP = Path(__file__).parents[2]
AZURITE = TOP / ".tools/azurite/node_modules/.bin/azurite-blob"
NODE = TOP / ".tools/node"  # where the machine has none: see the Makefile
# Azurite's well-known development account: public, and the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


_own_ports_lock = threading.Lock()  # several threads may start the first programs; a cache alone lets each reserve


@cache
def _own_ports() -> tuple[socket.socket, Iterator[int]]:
    """Reserve 200 ports for this process, as long as it lives: a name in the kernel that only one can have.

    They lie below those that the kernel gives to connections, so that none of these takes one before its program does.
    """
    for first in range(10_000, 32_000, 200):
        name = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            name.bind(f"\0nfs-watch-tests-{first}")
            return name, itertools.cycle(range(first, first + 200))
        name.close()
    raise AssertionError("too many processes test at once")


def free_port(offsets: Sequence[int] = (0,), multiple: int = 1) -> int:
    """Return a multiple on which, and at these offsets from which, nobody listens; no other process of tests has it."""
    with _own_ports_lock:
        ports = _own_ports()[1]
    for port in itertools.islice((port for port in ports if port % multiple == 0), 200):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for offset in offsets:
                listener = stack.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port + offset))
            return port
    raise AssertionError("no port is free")


def connection_string(endpoint: str) -> str:
    """Return the connection string of an emulator's account at this blob endpoint."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


def _clean() -> dict[str, str]:
    """Return the environment without the variables that would change the programs: settings, credentials, proxies."""
    theirs = ("NFS_WATCH_", "AZURE_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(theirs) and not k.lower().endswith("_proxy")}
    return kept | {"PATH": f"{NODE}:{kept.get('PATH', os.defpath)}"}


class Program:
    """A process whose output goes to a file and which is ended by its own id."""

    def __init__(self, argv: list[str], output: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = argv
        self.output = output
        self.env = {**_clean(), **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; output is appended."""
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(
                self.argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=self.env, cwd=TOP
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self, timeout: float = HANG) -> int:
        """Wait until the process ends and return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def log(self) -> str:
        """Return all its output."""
        return self.output.read_text(errors="replace")


class Server(Program):
    """A process that answers HTTP."""

    def __init__(self, argv: list[str], output: Path, port: int, env: Mapping[str, str] | None = None) -> None:
        super().__init__(argv, output, env)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def up(self, path: str = "/readyz", timeout: float = HANG) -> None:
        """Start the server and wait until it answers 200 to this path."""
        self.start()
        self.ready(path, timeout)

    def ready(self, path: str = "/readyz", timeout: float = HANG) -> None:
        """Wait until the server answers 200 to this path."""
        wait_for(lambda: self.answers(path), f"{self.argv[1:]} to answer", timeout)

    def answers(self, path: str) -> bool:
        """Tell whether the server answers this path; fails at once when the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.url + path, timeout=2, trust_env=False).status_code in {200, 400}
        return False


def wait_for(condition: Any, what: str, timeout: float = HANG, interval: float = 0.05) -> Any:
    """Wait until the condition holds and return its value."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(interval)
    raise AssertionError(f"waited {timeout} s in vain for {what}")


@contextlib.contextmanager
def azurite(folder: Path, *options: str, port: int = 0) -> Iterator[str]:
    """Run Azurite, on a free port unless one is given; yields its connection string. It keeps everything in memory."""
    port = port or free_port()
    argv = [str(AZURITE), "--blobPort", str(port), "--inMemoryPersistence"]
    argv += ["--skipApiVersionCheck", "--disableTelemetry", "--silent", *(options or ("--loose",))]
    server = Server(argv, folder / "azurite.log", port)
    try:
        server.up("/")
        yield connection_string(f"{server.url}/{ACCOUNT}")
    finally:
        server.kill()


def shard(folder: Path, root: Path, connection: str, ordinal: int = 0, **settings: object) -> Server:
    """Make a shard's process (not started); settings are those of the environment, without NFS_WATCH_."""
    port = int(str(settings.get("port") or free_port()))
    env = {
        "NFS_WATCH_ROOT": str(root),
        "NFS_WATCH_CONTAINER": "uploads",
        "AZURE_STORAGE_CONNECTION_STRING": connection,
        "NFS_WATCH_HOST": "127.0.0.1",
        "NFS_WATCH_PORT": str(port),
        "NFS_WATCH_ORDINAL": str(ordinal),
        "NFS_WATCH_REPLICAS": "1",
        "NFS_WATCH_SCAN_INTERVAL": "0.2",
        "NFS_WATCH_SETTLE": "0.5",
        "NFS_WATCH_RETENTION": "0.5",
        "NFS_WATCH_SWEEP_INTERVAL": "0.2",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    env |= {f"NFS_WATCH_{name.upper()}": str(value) for name, value in settings.items()}
    return Server([sys.executable, "-m", "uploader"], folder / f"shard-{ordinal}.log", port, env)


def router(folder: Path, shard_url: str, **settings: object) -> Server:
    """Make a router's process (not started); shard_url holds `{ordinal}`."""
    port = int(str(settings.get("port") or free_port()))
    env = {
        "NFS_WATCH_SHARD_URL": shard_url,
        "NFS_WATCH_HOST": "127.0.0.1",
        "NFS_WATCH_PORT": str(port),
        "NFS_WATCH_REPLICAS": "1",
    }
    env |= {f"NFS_WATCH_{name.upper()}": str(value) for name, value in settings.items()}
    return Server([sys.executable, "-m", "router"], folder / "router.log", port, env)


STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT

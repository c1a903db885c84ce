"""A shard that kills itself at one step: the real program with its threads, forked from a server that has it loaded."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from uploader.__main__ import main
from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.blob.azure import AzureBlobs

STOPPING = "stopping"  # a file of this name says that a stop has begun
_context = get_context("forkserver")
_context.set_forkserver_preload([__name__])
# The exit code comes through a pipe and once only; starting a process asks for those of all others too.
_asking = threading.Lock()


@dataclass(frozen=True)
class Step:
    """The n-th (from 1) step of a kind, and on which side of it the process dies."""

    kind: str
    side: Literal["before", "after"]
    number: int = 1

    def __str__(self) -> str:
        return f"{self.side} {self.kind} {self.number}"


RENAMES = {".processing": "claim", ".completed": "complete", ".json": "record's change"}
LINKS = {
    "destination.json": "destination's link",
    ".json": "record's link",
    ".bin": "link that gives back",
    ".processing": "link that takes up again",
}
UNLINKS = {".completed": "deletion", ".json": "record's removal", ".processing": "unlink that gives back"}


class _Counter:
    def __init__(self, last: Step) -> None:
        self.last = last
        self._count = 0
        self._lock = threading.Lock()

    def around(self, kind: str, call: Callable[[], Any]) -> Any:
        if kind != self.last.kind:
            return call()
        with self._lock:
            self._count += 1
            mine = self._count == self.last.number
        if mine and self.last.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def _arm(step: Step) -> None:
    counter, renaming = _Counter(step), os.rename

    def named(call: Callable[..., Any], kinds: Mapping[str, str], argument: int) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            name = os.fspath(args[argument])
            if "/.nfs-watch/ended/" in name:
                return counter.around("result" if call is renaming else "", lambda: call(*args, **options))
            if "/.nfs-watch/receipts/" in name:
                return counter.around("journals' removal" if call is renaming else "", lambda: call(*args, **options))
            kind = next((kind for end, kind in kinds.items() if name.endswith(end)), "")
            return counter.around(kind, lambda: call(*args, **options))

        return counted

    def request(call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        return lambda *args, **options: counter.around(kind, lambda: call(*args, **options))

    os.rename = named(os.rename, RENAMES, 1)
    os.link = named(os.link, LINKS, 1)
    os.unlink = named(os.unlink, UNLINKS, 0)
    for kind in ("put", "stage", "commit", "annotate", "snapshot"):
        setattr(AzureBlobs, kind, request(getattr(AzureBlobs, kind), kind))
    _arm_receipts(counter)


def _arm_receipts(counter: _Counter) -> None:
    def receipts(call: Callable[..., None]) -> Callable[..., None]:
        def counted(fd: int) -> None:
            ours = os.readlink(f"/proc/self/fd/{fd}").endswith(".jsonl")
            counter.around("receipts on disk" if ours else "", lambda: call(fd))

        return counted

    def sealing(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(store: AzureBlobs, name: str, *args: Any) -> Any:
            kind = "receipts' commit" if "/.receipts/" in name else ""
            return counter.around(kind, lambda: call(store, name, *args))

        return counted

    os.fsync = receipts(os.fsync)
    AzureBlobs.commit = sealing(AzureBlobs.commit)  # type: ignore[method-assign]


def _note_stops(flag: Path) -> None:
    """Make this file as soon as a stop has told the uploads to give up."""
    remove = Queues.remove

    def noted(backlog: Queues, files: Inventory) -> None:
        remove(backlog, files)
        flag.touch()

    Queues.remove = noted  # type: ignore[assignment, method-assign]


def _run(output: Path, env: Mapping[str, str], step: Step | None) -> None:
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    for name in [name for name in os.environ if name.startswith(("NFS_WATCH_", "AZURE_", "OTEL_"))]:
        del os.environ[name]
    os.environ.update(env)
    sys.argv[1:] = []  # the tests' own
    if step:
        _arm(step)
        _note_stops(output.parent / STOPPING)
    sys.argv = ["uploader"]  # a forked process has those of pytest
    main()


def start(output: Path, env: Mapping[str, str], step: Step | None = None) -> ForkServerProcess:
    """Start a shard with this environment; it dies at `step`."""
    process = _context.Process(target=_run, args=(output, dict(env), step), daemon=True)
    with _asking:
        process.start()
    return process


def ended(process: ForkServerProcess) -> int | None:
    """Return the process's exit code, None while it runs."""
    with _asking:
        return process.exitcode

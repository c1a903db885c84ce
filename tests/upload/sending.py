"""The upload code as the tests run it: real files, the real adapter, our endpoint."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Blob
from tests.support.blobs import CONTAINER, ServiceStore, azure_blobs
from uploader.blob.azure import AzureBlobs
from uploader.share.filesystem import FileSystem
from uploader.share.handle import Handle
from uploader.upload.memory import Memory
from uploader.upload.source import Source
from uploader.upload.transfer import Transfer

KIB = 1024
MIB = 1024 * KIB
BLOCK = 64 * KIB
NAME = "run/a.bin"


@dataclass
class Sending:
    """One process's engine. Blocks of 64 KiB, at most 16 of them in memory."""

    endpoint: Endpoint
    store: AzureBlobs
    transfer: Transfer
    root: Path
    sent: list[int] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def upload(self, path: Path, blob: str = NAME, *, retried: bool = False, **source: Any) -> None:
        """Upload a file as a worker does. Raises what the engine raises."""
        given = {"retried": retried, "cancelled": self.cancelled.is_set, "sent": self.sent.append}
        upload(self.transfer, path, blob, **(given | source))

    def file(self, size: int, name: str = "a.bin") -> Path:
        """Make a file with random content."""
        path = self.root / name
        path.write_bytes(os.urandom(size))
        return path

    def blob(self, name: str = NAME) -> Blob:
        """Return what is committed under a name."""
        return self.endpoint.store.blob(CONTAINER, name)

    def blobs(self) -> dict[str, Blob]:
        """Return all that is committed."""
        return self.endpoint.store.blobs(CONTAINER)

    def count(self, *operations: Operation) -> int:
        """Count the requests of these operations."""
        return sum(len(self.endpoint.log.of(operation)) for operation in operations)

    def holds(self, path: Path, name: str = NAME) -> bool:
        """Tell whether the blob has this file's content, and the labels that belong to it."""
        blob, data = self.blob(name), path.read_bytes()
        stored = self.store.head(name)
        assert stored is not None
        return blob.content == data and stored.size == len(data) and stored.md5 == hashlib.md5(data).digest()


@contextmanager
def taken(path: Path) -> Iterator[Handle]:
    """Open a file as a worker does. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH)
    try:
        with Handle(folder, path.name, FileSystem("ext4", leases=True, births=True)) as file:
            yield file
    finally:
        os.close(folder)


def upload(transfer: Transfer, path: Path, blob: str, **source: Any) -> None:
    """Upload a file as a worker does, with what a test wants to be otherwise. Raises what the engine raises."""
    folder = os.open(path.parent, os.O_PATH)
    with taken(path) as file:
        given: dict[str, Any] = {
            "file": file,
            "blob": blob,
            "session": "run",
            "retried": False,
            "cancelled": lambda: False,
            "sent": lambda _: None,
        }
        given |= source
        given["last_look"] = lambda: given["file"].last_look(folder, path.name)
        try:
            transfer.upload(Source(**given))
        finally:
            os.close(folder)


@contextmanager
def sending(root: Path, endpoint: Endpoint | None = None, timeout: float = 60, **settings: Any) -> Iterator[Sending]:
    """Give an engine, with an endpoint of its own unless one is given."""
    if endpoint is None:
        with Endpoint(ServiceStore()) as made, sending(root, made, timeout, **settings) as one:
            yield one
        return
    settings = {"block_size": BLOCK, "memory": 16 * BLOCK, "connections": 8} | settings
    with azure_blobs(endpoint.connection_string, root, timeout, **settings) as store:
        memory = Memory(settings["memory"], settings["block_size"])
        transfer = Transfer(store, memory, settings["connections"], content_md5=bool(settings.get("content_md5", True)))
        try:
            yield Sending(endpoint, store, transfer, root)
            assert memory.free + memory.spare == memory.limit, "memory was not given back"
        finally:
            transfer._pools.senders.shutdown()


def in_thread(call: Callable[[], None], within: float = 120) -> Callable[[], BaseException | None]:
    """Run this on a thread; return a function that waits for its end and returns the exception, if any."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 handed on
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def ended() -> BaseException | None:
        thread.join(within)
        assert not thread.is_alive(), "it hangs"
        return raised[0] if raised else None

    return ended

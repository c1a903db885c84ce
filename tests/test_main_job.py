"""The main job with real input: files on disk, Azurite, the programs as processes, SIGKILL."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from awscrt.checksums import combine_crc64nvme, crc64nvme
from azure.storage.blob import ContainerClient

from tests.demo.site import Site, files_in
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Blob, Store
from tests.support import programs
from tests.support.programs import wait_for

MIB = 1 << 20
BLOCK = 8 * MIB
MEMORY = 32 * MIB
CONNECTIONS = 16


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def md5_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").digest()


def content_of(path: Path) -> tuple[int, int]:
    """Return length and CRC64 of a file."""
    size = crc = 0
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            size, crc = size + len(data), crc64nvme(data, crc)
    return size, crc


def held(blob: Blob) -> tuple[int, int]:
    """Return length and CRC64 of what is committed, whatever the sizes of its blocks are."""
    size = crc = 0
    for block in blob.committed or []:
        size, crc = size + block.length, combine_crc64nvme(crc, block.crc64, block.length)
    return size, crc


class Arrivals:
    """Files that are moved into a session's folder; `expected` holds the digest of each, taken before it arrives."""

    def __init__(self, folder: Path, digest: Callable[[Path], Any]) -> None:
        self.folder = folder
        self.digest = digest
        self.expected: dict[str, Any] = {}

    def small(self, count: int) -> None:
        """Let a burst of small files arrive, in nested folders."""
        first = len(self.expected)
        for number in range(first, first + count):
            self._arrive(f"{number % 7}/{number % 3}/{number}.bin", os.urandom(number * 7 % 20_000))

    def large(self, name: str, size: int) -> None:
        """Let a sparse file with random bytes in each MiB arrive: cheap to make, and no two blocks are equal."""

        self._arrive(name, *(os.urandom(64) for _ in range(size // MIB)), apart=MIB)

    def _arrive(self, name: str, *parts: bytes, apart: int = 0) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}")
        with unfinished.open("wb") as file:
            for number, part in enumerate(parts):
                file.seek(number * apart)
                file.write(part)
            file.truncate(max(len(parts[0]), len(parts) * apart))
        self.expected[name] = self.digest(unfinished)
        unfinished.rename(target)


def blobs(connection: str, container: str, prefix: str) -> dict[str, bytes]:
    """Return the MD5 of each blob's content, as downloaded, by name below the prefix."""
    found = {}
    with ContainerClient.from_connection_string(connection, container) as client:
        for name in client.list_blob_names(name_starts_with=prefix):
            digest = hashlib.md5()
            for chunk in client.download_blob(name).chunks():
                digest.update(chunk)
            found[name.removeprefix(prefix)] = digest.digest()
    return found


def killed(*servers: programs.Server) -> None:
    """Kill the servers at the same instant with SIGKILL and start them again, as Kubernetes would; no call is made."""
    for server in servers:
        server.signal(9)
    for server in servers:
        server.wait()
        server.start()
    for server in servers:
        server.ready()


def end(site: Site, name: str) -> None:
    """Stop a session; nothing of it may be left on the share."""
    assert site.call("stop", session=name)["state"] == "draining"
    wait_for(lambda: f"{name}.json" not in site.records(), "the record to go", 240)
    assert files_in(site.share / name) == []
    # The record goes first: for a moment the shard still knows the session.
    wait_for(lambda: site.call(f"status?session={name}")["sessions"][0]["state"] == "ended", "the session to end")
    assert site.call("stop", session=name)["state"] == "ended"


def test_every_blob_in_azurite_is_its_source_and_the_share_is_empty(tmp_path: Path, stack: ExitStack) -> None:
    """Files arrive before and during the session, and both kinds of programs are killed three times."""
    site = Site(tmp_path, stack, stack.enter_context(programs.azurite(tmp_path)), settle_empty=1)
    arrivals = Arrivals(site.share / "run-1", md5_of)
    arrivals.small(150)  # the first one is empty
    arrivals.large("large.bin", 20 * MIB)
    assert site.call("start", session="run-1")["folder"] == "run-1"
    owner = site.shards[site.session("run-1")["shard"]]
    for number in range(3):
        arrivals.small(50)
        arrivals.large(f"a/large-{number}.bin", 20 * MIB)
        killed(owner, site.router)
    wait_for(lambda: not files_in(arrivals.folder), "an empty folder", 240)
    assert blobs(site.connection, "uploads", "run-1/") == arrivals.expected
    end(site, "run-1")


def writes(endpoint: Endpoint) -> int:
    return len(endpoint.log.of(Operation.PUT_BLOB)) + len(endpoint.log.of(Operation.PUT_BLOCK))


@pytest.mark.timeout(900)  # half a minute on two free cores
def test_5000_files_and_three_of_1_gib_survive_ten_kills_of_both_programs(tmp_path: Path, stack: ExitStack) -> None:
    """Nothing is lost, only what was in flight is sent twice, and another session runs beside it."""
    endpoint = stack.enter_context(Endpoint(Store(keep_bytes=False)))
    site = Site(tmp_path, stack, endpoint.connection_string, memory=MEMORY, block_size=BLOCK, connections=CONNECTIONS)
    arrivals, beside = Arrivals(site.share / "run-1", content_of), Arrivals(site.share / "run-2", content_of)
    arrivals.small(1000)
    arrivals.large("before.bin", 1024 * MIB)
    beside.small(100)
    shards = [site.call("start", session=name)["shard"] for name in ("run-1", "run-2")]
    assert sorted(shards) == [0, 1]
    for number in range(10):
        goal = writes(endpoint) + 100
        arrivals.small(400)
        beside.small(10)
        if number in {2, 5}:
            arrivals.large(f"a/b/during-{number}.bin", 1024 * MIB)
        wait_for(lambda goal=goal: writes(endpoint) >= goal, "some writes", 240)
        killed(site.shards[shards[0]], site.router)
    wait_for(lambda: not files_in(arrivals.folder) and not files_in(beside.folder), "empty folders", 600)
    assert len(arrivals.expected) == 5003
    for folder, expected in (("run-1/", arrivals.expected), ("run-2/", beside.expected)):
        stored = endpoint.store.blobs("uploads").items()
        assert {name.removeprefix(folder): held(blob) for name, blob in stored if name.startswith(folder)} == expected
    again = endpoint.log.received(Operation.PUT_BLOCK) - 3 * 1024 * MIB
    assert 0 <= again <= 10 * MEMORY
    small = [entry for entry in endpoint.log.of(Operation.PUT_BLOB) if entry.blob.startswith("run-1/")]
    assert 5000 <= len(small) <= 5000 + 10 * CONNECTIONS
    for name in ("run-1", "run-2"):
        end(site, name)

"""What a lease can and cannot tell of writers: on the server itself, on other clients, through a mapping."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.endpoint.server import Endpoint
from tests.nfs import bed
from tests.nfs.bed import HARD, SOFT, V3, V4, Site
from tests.nfs.ledger import Ledger, lengths
from uploader.share.lease import OPEN, held_open

GUEST = "alive"
SIZE = 8192
MANY = 200


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Path]]:
    """A folder of the export as the server has it, and clients of both versions on another machine."""
    site = Site("leases").make("run")
    folders = {"server": site.server / "run"}
    for name, version in {"v4.2": V4, "v3": V3}.items():
        folders[name] = (
            bed.mount(bed.MOUNTS / f"leases-{name}", "share", "producer", f"{version},{HARD}") / "leases/run"
        )
    yield folders
    for name in ("v4.2", "v3"):
        bed.unmount(bed.MOUNTS / f"leases-{name}")


@contextmanager
def writing(path: Path, *, mapped: bool) -> Iterator[None]:
    """Have a file open for writing, or mapped with its descriptor closed; some of it has been written."""
    with path.open("w+b") as file:
        file.truncate(SIZE)
        mapping = mmap.mmap(file.fileno(), SIZE)
        mapping[:10] = b"0123456789"
        mapping.flush()
        if not mapped:
            mapping.close()
            yield
    if mapped:
        yield
        mapping.close()


@pytest.mark.parametrize("mapped", [False, True], ids=["descriptor", "mapping"])
@pytest.mark.parametrize("where", ["server", "v4.2"])
def test_a_writer_is_told_for_as_long_as_it_has_the_file(seen: dict[str, Path], where: str, mapped: bool) -> None:
    """On the server itself, and on a client that opens files at the server."""
    name = f"{where}-{mapped}.bin"
    with writing(seen[where] / name, mapped=mapped):
        reader = os.open(seen["server"] / name, os.O_RDONLY)
        for _ in range(20):
            assert held_open(reader) is True
            time.sleep(0.05)
    bed.until(lambda: held_open(reader) is False, "the writer's end to be told")
    os.close(reader)


@pytest.mark.parametrize("mapped", [False, True], ids=["descriptor", "mapping"])
def test_a_writer_by_version_3_is_not_told_between_its_writes(seen: dict[str, Path], mapped: bool) -> None:
    """Version 3 has no open: the server has the file open for its last calls only, and lets it go when it is asked."""
    name = f"v3-{mapped}.bin"
    with writing(seen["v3"] / name, mapped=mapped):
        reader = os.open(seen["server"] / name, os.O_RDONLY)
        bed.until(lambda: held_open(reader) is False, "a lease to be granted")
        os.close(reader)


@pytest.mark.parametrize(("options", "leases"), [("", True), (V4, False), (V3, False)], ids=["folder", "v4.2", "v3"])
def test_the_log_says_which_rule_holds(options: str, leases: bool) -> None:
    site = Site(f"tells-{options[5:6]}", options and f"{options},{SOFT}").make("run")
    with Endpoint() as endpoint, bed.up(server := site.uploader(endpoint.connection_string)):
        told = bed.events(server, "share.tells")[0]
        print(told)
        assert told["leases"] is leases
        assert (told["kind"] in {"nfs", "nfs4"}) is bool(options)
    if options:
        bed.unmount(site.root)


def test_a_mapped_file_of_a_client_is_sent_when_its_writer_has_ended() -> None:
    """Once, and whole, however long the writer pauses; the status says what it waits for."""
    ledger, site = Ledger(), Site("mapped").make("run")
    producer = bed.mount(bed.MOUNTS / "mapping", "share/mapped", "producer", f"{V4},{HARD}")
    with Endpoint(ledger) as endpoint, bed.up(server := site.uploader(endpoint.connection_string, settle=1)):
        bed.start(server, "run")
        with writing(producer / "run/a.bin", mapped=True):
            bed.until(
                lambda: [one["error"] for one in bed.status(server, "run")["current"]] == [OPEN], "it to be shown"
            )
        bed.until(lambda: "run/a.bin" in ledger.commits, "the file")
    assert lengths(ledger.commits, "run/a.bin") == [SIZE]
    bed.unmount(producer)


@pytest.mark.parametrize("version", [V4, V3], ids=["v4.2", "v3"])
def test_what_a_file_costs_from_its_discovery_to_its_deletion(version: str) -> None:
    """Calls to the server, counted by the kernel; docs/nfs.md has the figures."""
    site = Site(f"cost-{version[5]}", f"{version},{SOFT}").make("run")
    for number in range(MANY):
        (site.server / f"run/{number}.bin").write_bytes(b"x" * 1000)
    with Endpoint() as endpoint:
        server = site.uploader(endpoint.connection_string, retention=0, sweep_interval=1, content_md5=False)
        with bed.up(server):
            bed.start(server, "run")
            bed.until(lambda: not site.files(), "an empty folder")
            calls = bed.calls(site.root)
    print(f"{calls.total() / MANY:.1f} calls a file:", {name: count for name, count in calls.most_common() if count})
    bed.unmount(site.root)

"""What a scan costs on the real mount: calls to the server, time and CPU, counted by the kernel in mountstats.

NFS_SIZES=1000,10000,50000 measures those numbers of files; docs/nfs.md has the figures.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.nfs import bed
from tests.nfs.bed import SOFT, V3, V4, Site
from tests.support.programs import wait_for
from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.backlog.settling import MAX_SETTLING
from uploader.discovery.discover import Discovery
from uploader.discovery.watch import Watch
from uploader.settings import Settings
from uploader.share import listings, scan
from uploader.share.mount import Share
from uploader.share.scan import Rule

GUEST = "alive"
SIZES = [int(size) for size in os.environ.get("NFS_SIZES", "2000").split(",")]


@dataclass
class Cost:
    """One scan."""

    calls: Counter[str]
    seconds: float
    cpu: float

    def __str__(self) -> str:
        named = ", ".join(f"{count} {name}" for name, count in self.calls.most_common() if count)
        return f"{self.calls.total()} calls ({named}), {self.seconds:.2f} s, {self.cpu:.2f} s CPU"


def cost(discovery: Discovery, root: Path) -> Cost:
    """Scan once."""
    before, began, cpu = bed.calls(root), time.monotonic(), time.process_time()
    discovery.scan_once()
    return Cost(bed.calls(root) - before, time.monotonic() - began, time.process_time() - cpu)


def discovery_on(site: Site, session: str, monkeypatch: pytest.MonkeyPatch) -> Discovery:
    """Make the discovery of a session without the workers that would take its files away."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "none")
    settings = Settings(root=site.root, container="none", settle=3600, settle_empty=3600, ordinal=0)
    share = Share(site.root, 0, settings.nfs_timeout)
    files = Inventory(session, settings.queue_size)
    return Discovery(files, Rule((), ""), settings, share, Watch(), Queues(settings.block_size), Event())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", [V4, V3], ids=["v4.2", "v3"])
def test_files_that_are_known_cost_no_call_each(version: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that runs every few seconds over thousands of waiting files must not load the server."""
    site = Site(f"scan-{version[5]}-{size}", f"{version},{SOFT}").make("scan")
    for number in range(size):
        (site.server / f"scan/{number}.bin").write_bytes(b"x")
    discovery = discovery_on(site, "scan", monkeypatch)
    first = cost(discovery, site.root)
    time.sleep(1.1)  # at least the attribute cache's time: what is known to the kernel does not help the next scan
    second = cost(discovery, site.root)
    (site.server / "scan/late.bin").write_bytes(b"x")
    time.sleep(1.1)
    third = cost(discovery, site.root)
    print(f"{size} files that are new: {first}")
    print(f"{size} files that are known: {second}")
    print(f"{size} files that are known and one that is new: {third}")
    assert max(second.calls.total(), third.calls.total()) < size / 10 or size > MAX_SETTLING
    discovery.share.close()
    bed.unmount(site.root)


@pytest.mark.parametrize("where", ["", "below/"])
@pytest.mark.parametrize("version", [V4, V3], ids=["v4.2", "v3"])
def test_a_folder_of_completed_files_is_listed_when_somebody_elsewhere_has_changed_it(
    version: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times tell, which the server moves: no event comes, and it is listed for no other reason here."""
    site = Site(f"listed-{version[5]}-{where.strip('/')}", f"{version},{SOFT}").make("scan")
    (site.server / "scan/below").mkdir()
    for name in ("x", "below/x"):
        (site.server / f"scan/{name}.completed").write_bytes(b"x")
    listed: list[str] = []
    listing = scan._listing

    def noted(folder: int, path: str, *rest: Any, **more: Any) -> Iterator[scan.Found]:
        listed.append(path)
        return listing(folder, path, *rest, **more)

    monkeypatch.setattr(scan, "_listing", noted)
    monkeypatch.setattr(listings, "LIST_AGAIN", 3600.0)
    discovery = discovery_on(site, "scan", monkeypatch)

    def quiet() -> bool:
        listed.clear()
        discovery.scan_once()
        return not listed

    wait_for(quiet, "both listings to hold")
    (site.server / f"scan/{where}late.bin").write_bytes(b"x")

    def found() -> bool:
        discovery.scan_once()
        return discovery.files.settling(f"{where}late.bin") is not None

    wait_for(found, "the new file to be found")
    assert set(listed) == {where.strip("/")}
    discovery.share.close()
    bed.unmount(site.root)

"""The server does a call, its reply gets lost, and the server has forgotten the call when it is repeated.

A repeated rename or unlink is then answered "no such file", although it was done. What is on disk has to decide.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.nfs import bed
from tests.nfs.bed import HARD, V3, V4, Site
from tests.nfs.proxy import Proxy, call
from tests.support.programs import Server

GUEST = "dying"
PORTS = {V4: 12042, V3: 12043}
SETTINGS = {"scan_interval": 0.5, "settle": 1, "retention": 3, "sweep_interval": 0.5, "nfs_timeout": 600}


@dataclass
class Behind:
    """An uploader whose mount goes through a proxy."""

    site: Site
    server: Server
    proxy: Proxy
    blobs: bed.Blobs
    kind: str = ""
    refused: Counter[str] = field(default_factory=Counter)

    def loses(self, kind: str, *names: str) -> None:
        """Arrange that the reply to this call gets lost and the server restarts before it is asked again."""
        self.kind = kind.upper()
        self.refused = bed.calls(self.site.root, -1)
        self.proxy.swallow(call(kind, *names), restart)

    def lost(self) -> None:
        """Wait until the reply was lost and the server has refused the repeated call."""
        assert self.proxy.swallowed.wait(bed.LONG), "no such call was made"
        bed.until(lambda: bed.calls(self.site.root, -1)[self.kind] > self.refused[self.kind], "the refusal")

    def put(self, name: str) -> None:
        part = self.site.server / "lossy" / f"{name}.part"
        part.write_bytes(name.encode())
        part.rename(self.site.server / "lossy" / name)

    def ends_well(self, name: str) -> None:
        """Expect the file in the store, then gone from the share, and no failure counted."""
        bed.until(lambda: name in self.blobs.names("lossy"), f"the blob {name}")
        assert self.blobs.content(f"lossy/{name}") == name.encode()
        bed.until(lambda: not self.site.files(), "an empty folder")
        assert bed.status(self.server, "lossy")["files"]["failed"] == 0


def restart() -> None:
    """Restart the server: what it remembers of calls and their replies is gone."""
    bed.stop_serving()
    bed.serve()


@pytest.fixture(scope="module", params=[V4, V3], ids=["v4.2", "v3"])
def behind(request: pytest.FixtureRequest, azure: str) -> Iterator[Behind]:
    port = PORTS[request.param]
    proxy = Proxy(bed.ADDRESSES["proxied"], port)
    site = Site(f"lossy-{port}", f"{request.param},{HARD},port={port}", machine="proxied").make("lossy")
    server = site.uploader(azure, **SETTINGS)
    with bed.up(server):
        yield Behind(site, server, proxy, bed.Blobs(azure))
    bed.unmount(site.root)
    proxy.close()


def test_the_link_of_a_new_session_record(behind: Behind) -> None:
    """The start is neither refused as a second one nor reported as a failure."""
    behind.loses("link", "lossy.json")
    answer = httpx.post(f"{behind.server.url}/v1/watch/start", json={"session": "lossy"}, timeout=bed.LONG)
    behind.lost()
    assert answer.status_code == 201, answer.text
    assert bed.status(behind.server, "lossy")["state"] == "active"


def test_the_rename_of_a_claim(behind: Behind) -> None:
    """The claim counts as ours, and the file is sent."""
    behind.loses("rename", "claim.bin", "claim.bin.processing")
    behind.put("claim.bin")
    behind.lost()
    behind.ends_well("claim.bin")


def test_the_rename_of_a_completion(behind: Behind) -> None:
    """The file counts as completed, and is completed once."""
    behind.loses("rename", "complete.bin.processing", "complete.bin.completed")
    behind.put("complete.bin")
    behind.lost()
    behind.ends_well("complete.bin")
    sent = [line for line in bed.events(behind.server, "file.completed") if line["path"] == "complete.bin"]
    assert len(sent) == 1


def test_the_deletion_of_a_completed_file(behind: Behind) -> None:
    """A file that is gone already is no failure of the sweeper."""
    behind.loses("remove", "sweep.bin.completed")
    behind.put("sweep.bin")
    behind.lost()
    behind.ends_well("sweep.bin")

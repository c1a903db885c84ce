"""Which files are taken, and that every such file is: extensions, ignored names, folders, bursts."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.demo.site import Site, files_in
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import absent
from tests.support.programs import wait_for
from uploader.share.filesystem import tried
from uploader.share.lease import OPEN


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as it:
        yield it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Site]:
    """Shards that take .bin and .tar.gz unless a session says otherwise; they scan seldom: events must bring files."""
    limits: dict[str, Any] = {
        "max_sessions": 20,
        "extensions": ".bin,.tar.gz",
        "scan_interval": 5,
        "queue_size": 50,
    }
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("arriving"), stack, endpoint.connection_string, **limits)


@pytest.fixture(scope="module")
def scanning(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Site]:
    """Shards that take every extension, with a queue that is soon full."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("scanning")
        yield Site(folder, stack, endpoint.connection_string, max_sessions=20, queue_size=50)


def blobs(endpoint: Endpoint, session: str) -> dict[str, bytes]:
    """Return what was sent of a session's files."""
    prefix, receipts = f"{session}/", f"{session}/.receipts/"
    held = endpoint.store.blobs("uploads").items()
    ours = {name: blob.content for name, blob in held if name.startswith(prefix) and not name.startswith(receipts)}
    return {name.removeprefix(prefix): content for name, content in ours.items()}


def begin(site: Site, name: str, **fields: object) -> Path:
    """Start a session and return its folder."""
    site.call("start", session=name, **fields)
    return site.share / name


def drained(site: Site, name: str) -> None:
    """Stop a session; when its record is gone, every eligible file has been sent and deleted."""
    site.call("stop", session=name)
    wait_for(lambda: f"{name}.json" not in site.records(), "the drain to end")


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


ALL = ["a.bin", "B.BIN", "c.tar.gz", "d.gz", "e.h5", "F.H5", "no-extension", "bin"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, {"a.bin", "B.BIN", "c.tar.gz"}),
        ([".H5"], {"e.h5", "F.H5"}),
        ([".gz"], {"c.tar.gz", "d.gz"}),
        ([], set(ALL)),
    ],
)
def test_a_sessions_own_extensions_go_before_those_of_the_settings(
    site: Site, endpoint: Endpoint, given: list[str] | None, taken: set[str]
) -> None:
    """Case does not matter, an empty list takes every file, and other files stay untouched."""
    name = f"extensions-{'-'.join(given) if given else given is None}".replace("-.", "-")
    write(site.share / name, *ALL[::2])
    folder = begin(site, name, **({} if given is None else {"extensions": given}))
    write(folder, *ALL[1::2])
    wait_for(lambda: blobs(endpoint, name).keys() == taken, f"{taken} to be taken")
    wait_for(lambda: set(files_in(folder)) == set(ALL) - taken, "the others to stay")
    drained(site, name)
    assert set(files_in(folder)) == set(ALL) - taken


def test_hidden_and_temporary_names_are_left_alone_until_they_are_moved(scanning: Site, endpoint: Endpoint) -> None:
    """Producers may write under such a name and rename; unfinished files are neither sent nor shown as failed."""
    hidden = [".a.bin", ".folder/b.bin", ".nfs000001"]
    temporary = ["c.tmp", "d.PART", "e.partial", "f.swp", "g.crdownload", "h.bin~"]
    folder = begin(scanning, "temporary")
    write(folder, *hidden, *temporary, "seen.bin")
    assert scanning.session("temporary")["files"]["failed"] == 0
    drained(scanning, "temporary")
    assert blobs(endpoint, "temporary").keys() == {"seen.bin"}
    assert set(files_in(folder)) == {*hidden, *temporary}
    begin(scanning, "temporary")
    (folder / "c.tmp").rename(folder / "c.bin")
    (folder / ".folder").rename(folder / "folder")
    wait_for(lambda: blobs(endpoint, "temporary").keys() == {"seen.bin", "c.bin", "folder/b.bin"}, "what was moved")
    drained(scanning, "temporary")
    assert blobs(endpoint, "temporary").keys() == {"seen.bin", "c.bin", "folder/b.bin"}
    assert blobs(endpoint, "temporary")["folder/b.bin"] == b".folder/b.bin"


def test_a_folder_that_is_moved_in_whole_is_taken_with_all_below_it(site: Site, endpoint: Endpoint) -> None:
    """No event names the files in it, so it is scanned; later files in it are seen too."""
    outside = site.share / ".outside"
    names = [f"{one}/{two}/{number}.bin" for one in "abc" for two in "xyz" for number in range(5)]
    write(outside, *names)
    folder = begin(site, "moved")
    outside.rename(folder / "in")
    wait_for(lambda: len(blobs(endpoint, "moved")) == len(names), "the whole folder")
    write(folder, "in/a/x/later.bin", "in/a/new/deeper/last.bin")
    wait_for(lambda: len(blobs(endpoint, "moved")) == len(names) + 2, "what came later")
    expected = {f"in/{name}": name.encode() for name in names}
    expected |= {name: name.encode() for name in ("in/a/x/later.bin", "in/a/new/deeper/last.bin")}
    assert blobs(endpoint, "moved") == expected


@pytest.mark.parametrize("taken", ["by events", "by scans"])
def test_a_burst_of_thousands_is_taken_whole_and_sent_once(
    site: Site, scanning: Site, endpoint: Endpoint, taken: str
) -> None:
    """Forty times what the queue holds, in new folders: each file arrives, and none is sent twice."""
    at = site if taken == "by events" else scanning
    name = f"burst-{taken.replace(' ', '-')}"
    folder = begin(at, name)
    names = [f"{number // 100}/{number}.bin" for number in range(2000)]
    write(folder, *names)
    wait_for(lambda: not files_in(folder), "an empty folder", 240)
    assert blobs(endpoint, name) == {one: one.encode() for one in names}
    sent = [entry for entry in endpoint.log.of(Operation.PUT_BLOB) if entry.blob.startswith(f"{name}/")]
    assert len(sent) == 2000
    status = at.session(name)
    assert (status["files"], status["last_error"]) == (
        {"waiting": 0, "uploading": 0, "completed": 2000, "failed": 0, "replaced": 0},
        None,
    )


@pytest.fixture
def patient(tmp_path: Path, endpoint: Endpoint) -> Iterator[Site]:
    """Shards with a `settle` of an hour: only a sign makes them take a file earlier."""
    with ExitStack() as stack:
        yield Site(tmp_path, stack, endpoint.connection_string, settle=3600)


def test_a_file_that_is_written_in_place_goes_when_it_is_closed_and_whole(patient: Site, endpoint: Endpoint) -> None:
    """Scans that meet the file between two writes leave it alone; each is forced by a folder that is moved in."""
    folder, outside, content = begin(patient, "in-place"), patient.share / ".outside", os.urandom(800_000)
    with (folder / "a.bin").open("wb") as file:
        for number in range(8):
            file.write(content[number * 100_000 :][:100_000])
            file.flush()
            write(outside, f"{number}/b.bin")
            os.utime(outside / f"{number}/b.bin", (1, 1))  # its last change is no write: it is finished
            (outside / f"{number}").rename(folder / f"{number}")
            wait_for(lambda n=number: f"{n}/b.bin" in blobs(endpoint, "in-place"), "a scan")
            assert "a.bin" not in blobs(endpoint, "in-place")
    wait_for(lambda: "a.bin" in blobs(endpoint, "in-place"), "the whole file")
    assert blobs(endpoint, "in-place")["a.bin"] == content


def test_a_file_that_somebody_has_open_when_it_is_moved_in_goes_soon_after(tmp_path: Path, endpoint: Endpoint) -> None:
    """As the kernel's NFS server has what its clients wrote. No event tells that it is closed, and no scan comes."""
    with ExitStack() as stack:
        site = Site(tmp_path, stack, endpoint.connection_string, settle=3600, scan_interval=3600)
        folder = begin(site, "held")
        outside = site.share / "outside.bin"
        outside.write_bytes(b"content")
        if not tried(str(site.share / ".nfs-watch"), 99).leases:
            absent("the file system of the tests keeps no leases")
        (folder / ".a.bin").hardlink_to(outside)
        with outside.open("r+b"):
            (folder / ".a.bin").rename(folder / "a.bin")
            wait_for(lambda: [one["error"] for one in site.session("held")["current"]] == [OPEN], "it to be shown")
        wait_for(lambda: blobs(endpoint, "held") == {"a.bin": b"content"}, "the file")


def test_a_name_that_comes_again_replaces_its_blob(scanning: Site, endpoint: Endpoint) -> None:
    """Also while the earlier file of the name is claimed, or completed and not yet deleted."""
    folder = begin(scanning, "again")
    for number in range(20):
        content = f"version {number}".encode() * 1000
        (folder / ".next").write_bytes(content)
        (folder / ".next").rename(folder / "a.bin")
        if number % 3 == 0:
            wait_for(lambda content=content: blobs(endpoint, "again").get("a.bin") == content, "this version")
    wait_for(lambda: not files_in(folder), "an empty folder")
    assert blobs(endpoint, "again") == {"a.bin": content}

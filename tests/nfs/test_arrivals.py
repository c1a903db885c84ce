"""A file that another machine puts on the share is found by the scan alone; on the server itself, by inotify."""

import os
import random
import statistics
from collections.abc import Iterator
from typing import Any

import inotify_simple
import pytest

from tests.nfs import bed
from tests.nfs.bed import SOFT, V3, V4, Site
from tests.support.programs import Server

GUEST = "alive"


@pytest.fixture(scope="module", params=[V4, V3], ids=["v4.2", "v3"])
def watched(request: pytest.FixtureRequest, azure: str) -> Iterator[tuple[Site, Server]]:
    """A site and the uploader that watches it, with four sessions."""
    request.getfixturevalue("producer")
    name = f"arrivals-{request.param[5]}"
    site = Site(name, f"{request.param},{SOFT}").make("renamed", "old", "silly", "nested")
    server = site.uploader(azure, max_sessions=4, settle_empty=3600)  # no empty file goes within these cases
    with bed.up(server):
        for session in ("renamed", "old", "silly", "nested"):
            bed.start(server, session)
        yield site, server


@pytest.fixture(scope="module")
def blobs(azure: str) -> bed.Blobs:
    return bed.Blobs(azure)


def rename_in(site: Site, path: str, content: bytes) -> None:
    """Do as a producer should: write under another name, then rename."""
    target = site.producer / path
    part = target.with_name(target.name + ".part")
    part.write_bytes(content)
    part.rename(target)


def test_a_file_renamed_into_place_elsewhere_is_found_without_any_event(
    watched: tuple[Site, Server], blobs: bed.Blobs
) -> None:
    """inotify says nothing of what other NFS clients do: the scan must find it."""
    site, _ = watched
    make: Any = inotify_simple.INotify
    flags = inotify_simple.flags
    with make() as inotify:
        inotify.add_watch(site.root / "renamed", flags.CREATE | flags.MOVED_TO | flags.CLOSE_WRITE | flags.MODIFY)
        rename_in(site, "renamed/a.bin", b"a" * 1000)
        took = bed.left_plain(site.server / "renamed/a.bin")
        seen = [event.name for event in inotify.read(timeout=0)]
    print(f"claimed after {took:.2f} s")
    assert "a.bin" not in seen
    bed.until(lambda: blobs.names("renamed") >= {"a.bin"}, "the blob")
    assert blobs.content("renamed/a.bin") == b"a" * 1000


def test_a_file_that_was_seen_empty_goes_soon_after_it_is_filled(watched: tuple[Site, Server]) -> None:
    """It settles as a file with content, and not for the hour that an empty one has to here."""
    site, server = watched
    with (site.producer / "renamed/empty.bin").open("wb") as file:
        bed.until(lambda: bed.status(server, "renamed")["files"]["waiting"] == 1, "the empty file to be seen")
        file.write(b"x" * 1000)
    took = bed.left_plain(site.server / "renamed/empty.bin")
    print(f"claimed after {took:.2f} s")


def test_a_folder_that_is_moved_in_whole_is_found(watched: tuple[Site, Server], blobs: bed.Blobs) -> None:
    """Every file at every depth arrives, without any event."""
    site, _ = watched
    (site.producer / "made/deep").mkdir(parents=True)
    for number in range(20):
        (site.producer / f"made/deep/{number}.bin").write_bytes(bytes([number]) * 100)
    (site.producer / "made").rename(site.producer / "nested/in")
    bed.until(lambda: len(blobs.names("nested")) == 20, "20 blobs")
    assert blobs.content("nested/in/deep/7.bin") == b"\x07" * 100


def test_a_copy_that_keeps_an_old_mtime_ends_up_whole(watched: tuple[Site, Server], blobs: bed.Blobs) -> None:
    """`cp -p` sets an mtime years ago, which must not make a half copy look settled."""
    site, _ = watched
    source = bed.GUEST / "old.bin"
    content = random.Random(1).randbytes(20 << 20)
    source.write_bytes(content)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    bed.run("cp", "-p", source, site.producer / "old/old.bin")
    bed.until(lambda: blobs.names("old"), "the blob")
    assert blobs.content("old/old.bin") == content


def test_silly_renamed_files_are_ignored(watched: tuple[Site, Server], blobs: bed.Blobs) -> None:
    """A file that is deleted while open leaves `.nfs...` behind, which is neither sent nor shown as failed."""
    site, server = watched
    kept = os.open(site.root / "silly/gone.part", os.O_CREAT | os.O_WRONLY)
    os.write(kept, b"x" * 100)
    os.fsync(kept)
    (site.root / "silly/gone.part").unlink()
    assert [path.name[:4] for path in (site.server / "silly").iterdir()] == [".nfs"]
    rename_in(site, "silly/good.bin", b"good")
    bed.until(lambda: blobs.names("silly") == {"good.bin"}, "the good blob")
    assert bed.status(server, "silly")["files"]["failed"] == 0
    assert [path.name for path in (site.server / "silly").iterdir() if path.name.startswith(".nfs")]
    os.close(kept)


@pytest.mark.usefixtures("producer")
def test_on_the_server_itself_a_rename_is_claimed_without_any_scan(azure: str) -> None:
    """With a local volume, inotify sees what NFS clients do to the exported folder.

    The only scan, which takes up an earlier claim, begins with the watch; the next one comes in an hour.
    """
    site = Site("local").make("local")
    server = site.uploader(azure, scan_interval=3600, settle=3600)
    first, took = site.server / "local/first.bin.processing", []
    first.write_bytes(b"x")
    with bed.up(server):
        bed.start(server, "local")
        bed.left_plain(first)
        for number in range(20):
            rename_in(site, f"local/{number}.bin", b"x" * 1000)
            took.append(bed.left_plain(site.server / f"local/{number}.bin"))
    print(f"claimed after {statistics.median(took) * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms")

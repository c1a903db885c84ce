"""When a scan lists a folder again: its times tell, within what such times can tell."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clock import Clock, tick
from uploader.share.listings import LIST_AGAIN, TICK, Listings
from uploader.share.scan import Kind, Rule, scan

ALL = Rule((), "run/")
EVERY = [f"{folder}{number}" for folder in ("", "sub/", "sub/deep/") for number in (1, 2)]


class Site:
    """A session's folder with completed files, and the listings of its scans."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.listings = Listings(self.clock.monotonic)
        self.root = root / "run"
        (self.root / "sub/deep").mkdir(parents=True)
        for path in EVERY:
            (self.root / f"{path}.completed").touch()
        self.top = os.open(self.root, os.O_PATH)

    def scan(self, *, whole: bool = False) -> list[str]:
        """Return the paths that a scan tells, in order."""
        self.listings.begin(whole=whole)
        return sorted(found.path for found in scan(self.top, ALL, listings=self.listings))

    def known(self) -> None:
        """Scan twice, so far apart that the listings hold; the next change gives a folder another time."""
        self.scan()
        self.clock.now += TICK
        assert self.scan() == EVERY
        last = max(folder.stat().st_mtime_ns for folder in (self.root, self.root / "sub", self.root / "sub/deep"))
        tick(self.root.parent / "clock", last)
        assert self.scan() == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    os.close(site.top)


def test_folders_of_completed_files_are_not_listed_again(site: Site) -> None:
    """Two listings that are further apart than any file system's tick saw the same times."""
    site.scan()
    site.clock.now += TICK - 0.1
    assert site.scan() == EVERY
    site.clock.now += 0.1
    assert site.scan() == EVERY
    assert site.scan() == []


def put_back(top: Path) -> None:
    before = top.stat()
    (top / "new").touch()
    os.utime(top, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(top: Path) -> None:
    (top / "sub").rename(top.parent / "aside")
    (top / "sub").mkdir()
    (top / "sub/new").touch()


def changed(name: str, change: Callable[[Path], object], *seen: str) -> object:
    return pytest.param(change, list(seen), id=name)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        changed("made", lambda top: (top / "new").touch(), "1", "2", "new"),
        changed("deep", lambda top: (top / "sub/deep/new").touch(), "sub/deep/1", "sub/deep/2", "sub/deep/new"),
        changed("renamed", lambda top: (top / "sub/1.completed").rename(top / "sub/1"), "sub/1", "sub/2"),
        changed("removed", lambda top: (top / "1.completed").unlink(), "2"),
        changed("a folder", lambda top: (top / "sub/more").mkdir(), "sub/1", "sub/2"),
        changed("times put back", put_back, "1", "2", "new"),
        changed("another folder", replaced, "1", "2", "sub/new"),
    ],
)
def test_a_folder_that_changes_is_listed(site: Site, change: Callable[[Path], object], seen: list[str]) -> None:
    site.known()
    change(site.root)
    assert site.scan() == seen


@pytest.mark.parametrize("name", ["plain", "x.processing", "x.PROCESSING", "x.processing.processing"])
def test_a_folder_with_something_to_do_is_listed_each_time(site: Site, name: str) -> None:
    """Its listing never holds; those of other folders do."""
    (site.root / "sub" / name).touch()
    first = site.scan()
    site.clock.now += TICK
    assert site.scan() == first
    again = site.scan()
    assert again == [path for path in first if path.startswith("sub/") and "deep" not in path]
    (site.root / "sub" / name).unlink()
    assert site.scan() == ["sub/1", "sub/2"]


def test_a_whole_scan_passes_nothing_over(site: Site) -> None:
    """Before a session has drained, and when an event asks for it."""
    site.known()
    assert site.scan(whole=True) == EVERY
    assert site.scan() == []


def test_each_folder_is_listed_after_a_while(site: Site) -> None:
    """Some file systems do not keep their folders' times."""
    site.known()
    site.clock.now += LIST_AGAIN - 0.1
    assert site.scan() == []
    site.clock.now += 0.1
    assert site.scan() == EVERY


def test_a_folder_below_that_is_unfinished_stays_so(site: Site) -> None:
    """What a listing passed over is not entered by the next scan."""
    (site.root / "x.tmp").mkdir()
    (site.root / "x.tmp/1").touch()
    site.known()


def test_folders_that_are_gone_are_forgotten(site: Site) -> None:
    site.known()
    os.rename(site.root / "sub", site.root.parent / "aside")
    site.scan()
    site.scan()
    assert len(site.listings._now) == 1


def test_a_scan_that_ends_early_keeps_no_listing(site: Site) -> None:
    """What it has not seen is not passed over."""
    site.scan()
    site.clock.now += TICK
    site.listings.begin(whole=False)
    found = scan(site.top, ALL, listings=site.listings)
    assert next(found).kind is Kind.COMPLETED
    del found
    assert site.scan() == EVERY

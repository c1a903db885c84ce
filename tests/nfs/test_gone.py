"""The share goes in other ways: stale handles, a lost mount, a pulled cable. Gone is not empty."""

import os
import random
from dataclasses import dataclass

from tests.nfs import bed
from tests.nfs.bed import SOFT, V4, Site
from tests.support.programs import Server

GUEST = "dying"
FILES = {f"file{number}.bin": random.randbytes(5000) for number in range(30)}
SETTINGS = {"scan_interval": 0.5, "settle": 1, "settle_empty": 1, "retention": 5, "sweep_interval": 0.5}


@dataclass
class Going:
    """An uploader at work on a share that is about to go."""

    site: Site
    server: Server
    azure: str

    def ends(self, reason: str) -> None:
        """Expect the process to exit with 75 for this reason, with the record and the waiting file still there."""
        began = bed.now()
        assert self.server.wait(bed.LONG) == 75
        ends = bed.events(self.server, "process.ends")
        print(f"gone after {bed.now() - began:.1f} s: {ends[0]['reason']}")
        assert reason in ends[0]["reason"]
        assert (self.site.server / ".nfs-watch/sessions/going.json").exists()
        assert any(name.startswith("going/waits.bin") for name in self.site.files())

    def goes_on(self) -> None:
        """Start again on a fresh mount, finish what waited and put one more."""
        late = self.site.server / "going/late.part"
        late.write_bytes(b"late")
        late.rename(late.with_suffix(".bin"))
        server = self.site.uploader(self.azure, **SETTINGS)
        blobs = bed.Blobs(self.azure)
        with bed.up(server):
            bed.until(lambda: blobs.names("going") >= {*FILES, "waits.bin", "late.bin"}, "all blobs")
            assert all(blobs.content(f"going/{name}") == content for name, content in FILES.items())
            bed.until(lambda: not self.site.files(), "an empty folder")


def going(azure: str, name: str, export: str = "share") -> Going:
    """Make a site with files in progress, and a file that would settle for an hour, when the share goes.

    The others bear a sign that they are finished: something happened to them after their last write.
    """
    site = Site(name, f"{V4},{SOFT}", export=export)
    site.server.mkdir(parents=True)
    site.make()
    server = site.uploader(azure, **{**SETTINGS, "settle": 3600, "nfs_timeout": bed.NFS_TIMEOUT})
    server.up()
    bed.start(server, "going")  # makes the folder: of files that lay there before a sign would not count
    for file, content in FILES.items():
        part = site.server / "going" / f"{file}.part"
        part.write_bytes(content)
        os.utime(part, (1_000_000_000, 1_000_000_000))
        part.rename(part.with_suffix(""))
    bed.until(lambda: bed.events(server, "file.completed"), "the first file")
    (site.server / "going/waits.bin").write_bytes(b"waits")
    return Going(site, server, azure)


def test_stale_handles_end_the_process_and_a_fresh_mount_goes_on(azure: str) -> None:
    """The export is withdrawn and given again with another fsid: old handles never work again."""
    other = bed.EXPORT / "other"
    other.mkdir()
    bed.run("mount", "-t", "tmpfs", "other", other)
    export = ["-o", "rw,no_root_squash,insecure,no_subtree_check", f"10.0.0.0/8:{other}"]
    bed.run("exportfs", *export[:1], f"{export[1]},fsid=7", export[2])
    case = going(azure, "stale", "other")
    bed.run("exportfs", "-u", export[2])
    bed.run("exportfs", *export[:1], f"{export[1]},fsid=8", export[2])
    bed.run("exportfs", "-f")
    case.ends("Stale file handle")
    bed.unmount(case.site.root)
    case.site.mount()
    case.goes_on()


def test_an_empty_folder_in_the_place_of_the_mount_ends_nothing(azure: str) -> None:
    """After an unmount no session may end because its folder seems to hold nothing."""
    case = going(azure, "unmounted")
    bed.unmount(case.site.root)
    assert list(case.site.root.iterdir()) == []
    case.ends("no longer the share")
    assert list(case.site.root.iterdir()) == []
    case.site.mount()
    case.goes_on()


def test_another_share_in_the_place_of_the_mount_ends_nothing(azure: str) -> None:
    """Another share's files are neither sent nor deleted."""
    case = going(azure, "replaced")
    Site("replacing").make()
    (bed.SHARE / "replacing/going").mkdir(parents=True)
    (bed.SHARE / "replacing/going/theirs.bin.completed").write_bytes(b"not ours")
    bed.mount(case.site.root, "share/replacing", "uploader", case.site.options)
    case.ends("no longer the share")
    assert (bed.SHARE / "replacing/going/theirs.bin.completed").read_bytes() == b"not ours"
    bed.unmount(case.site.root)
    case.goes_on()


def test_a_pulled_cable_ends_the_process(azure: str) -> None:
    """The server does not refuse, it is silent: the watchdog's time decides."""
    case = going(azure, "cable")
    bed.run("ip", "link", "set", "uploader", "down")
    try:
        case.ends("not answer")
    finally:
        bed.run("ip", "link", "set", "uploader", "up")
    case.goes_on()

"""The image for linux/arm64, built from the Dockerfile and run under emulation: a session from start to sweep, over a kill."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.endpoint.faults import StallReply
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.k8s.arm64 import make_base, register
from tests.k8s.test_image import AUTHORITIES, KEPT, program, run
from tests.need import absent, need
from tests.support.programs import TOP, Server, wait_for

STORAGE = KEPT / "arm64"
BASE = "localhost/nfs-watch-base:arm64-1"
IMAGE = "localhost/nfs-watch:arm64"
MIB = 1024 * 1024
# The first build on a machine downloads a Debian and every wheel, and installs these under emulation.
pytestmark = pytest.mark.timeout(1800)


def builder(*argv: str | Path) -> str:
    """Run buildah with a storage of its own."""
    options = ["--root", str(STORAGE), "--runroot", "/run/nfs-watch-arm64", "--storage-driver"]
    overlay = subprocess.run(["buildah", *options, "overlay", "info"], capture_output=True, check=False)
    return run("buildah", *options, "vfs" if overlay.returncode else "overlay", *argv, timeout=1500)


def keep_base() -> None:
    """Make the base, unless it was kept."""
    if BASE in builder("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    folder = KEPT / f"arm64-base-{os.getpid()}"
    try:
        make_base(folder)
        shutil.copy(AUTHORITIES, folder / AUTHORITIES.relative_to("/"))
        container = builder("from", "--arch", "arm64", "scratch")
        builder("add", "--quiet", container, folder, "/")
        builder("config", "--arch", "arm64", "--env", f"PIP_CERT={AUTHORITIES}", container)
        builder("commit", "--quiet", "--rm", container, BASE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The image's root file system; the layer with the dependencies is kept from run to run."""
    need("buildah", "debootstrap", "dpkg-deb", "unshare", "chroot")
    if os.geteuid() != 0:
        absent("debootstrap and chroot need root")
    register()
    KEPT.mkdir(parents=True, exist_ok=True)
    keep_base()
    options = ["--quiet", "--arch", "arm64", "--isolation", "chroot", "--layers", "--build-arg", f"BASE={BASE}"]
    builder("bud", *options, "--tag", IMAGE, TOP)
    container = builder("from", "--arch", "arm64", IMAGE)
    yield Path(builder("mount", container))
    builder("rm", container)
    builder("rmi", "--prune")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    folder = tmp_path / "share"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    return folder


@pytest.fixture
def shard(root: Path, share: Path, tmp_path: Path) -> Iterator[tuple[Server, Endpoint]]:
    """A shard of the image; not started."""
    with Endpoint() as store:
        store.store.create("uploads")
        env = {"NFS_WATCH_ROOT": "/mnt", "NFS_WATCH_ORDINAL": "0", "NFS_WATCH_CONTAINER": "uploads"}
        env |= {"AZURE_STORAGE_CONNECTION_STRING": store.connection_string, "NFS_WATCH_BLOCK_SIZE": str(MIB)}
        env |= {"NFS_WATCH_RETENTION": "0.5", "NFS_WATCH_SWEEP_INTERVAL": "0.2", "NFS_WATCH_SETTLE": "0.5"}
        server = program(root, share, tmp_path, "uploader", **env)
        yield server, store
        server.kill()


def arrive(share: Path, name: str, content: bytes) -> None:
    """Move a finished file into the session's folder."""
    file = share / f".{name}"
    file.write_bytes(content)
    os.chown(file, 1000, 1000)
    file.rename(share / "run-1" / name)


def test_a_session_lives_through_a_kill_on_arm64(shard: tuple[Server, Endpoint], share: Path) -> None:
    """Small files and a large one; killed while the commit's answer is held; nothing is sent again, all is swept."""
    server, store = shard
    server.up("/readyz", timeout=300)
    answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run-1"}, timeout=300)
    assert answer.status_code == 201, answer.text
    store.faults.add(StallReply(3600), Operation.PUT_BLOCK_LIST)
    large = os.urandom(3 * MIB + 5)
    arrive(share, "large.bin", large)
    wait_for(lambda: "run-1/large.bin" in store.store.blobs("uploads"), "the commit, whose answer is held", 300)
    server.kill()
    assert (share / "run-1/large.bin.processing").exists()
    sent = store.log.received(Operation.PUT_BLOCK)
    assert sent == len(large)

    server.up("/readyz", timeout=300)
    small = {f"{number}.bin": bytes([number]) * (1000 + number) for number in range(20)}
    for name, content in small.items():
        arrive(share, name, content)
    wait_for(lambda: not list((share / "run-1").iterdir()), "every file to be uploaded and swept", 300)
    assert store.log.received(Operation.PUT_BLOCK) == sent, "blocks were sent again"
    for name, content in {"large.bin": large, **small}.items():
        assert store.store.blob("uploads", f"run-1/{name}").content == content


def test_the_router_and_its_page_on_arm64(root: Path, share: Path, tmp_path: Path) -> None:
    """The other program of the image."""
    server = program(root, share, tmp_path, "router", NFS_WATCH_SHARD_URL="http://127.0.0.1:9/{ordinal}")
    try:
        server.up("/livez", timeout=300)
        page = httpx.get(f"{server.url}/", timeout=300)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        shards = httpx.get(f"{server.url}/v1/watch/status", timeout=300).json()["shards"]
        assert [one["reachable"] for one in shards] == [False]
    finally:
        server.kill()

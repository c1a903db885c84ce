"""The image: built from the Dockerfile, and both programs started from its root file system."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.need import absent, need
from tests.support.image import PROGRAMS, Builder, run
from tests.support.programs import TOP, Server, azurite, free_port, wait_for

IMAGE = "localhost/nfs-watch:test"
# The first build on a machine downloads a Debian and every wheel.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def builder() -> Builder:
    need(*PROGRAMS, "unshare", "chroot")
    if os.geteuid() != 0:
        absent("debootstrap and chroot need root")
    return Builder()


@pytest.fixture(scope="module")
def root(builder: Builder) -> Iterator[Path]:
    """The root file system of the image."""
    builder.build(IMAGE)
    container = builder("from", IMAGE)
    yield Path(builder("mount", container))
    builder("rm", container)
    builder.prune()


@pytest.fixture(scope="module")
def config(builder: Builder, root: Path) -> dict[str, object]:
    """The image's own configuration: user, entry point, command."""
    del root
    found: dict[str, object] = json.loads(builder("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]
    return found


# A mount namespace of its own: the image read-only, a share, nothing else that could be written.
SCRIPT = """
set -e
mount --bind "$1" "$1"
mount --bind "$2" "$1/mnt"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -o remount,bind,ro "$1"
exec chroot --userspec=1000:1000 --groups= "$1" /usr/bin/env --ignore-environment --chdir=/app/programs "${@:3}"
"""


def program(root: Path, share: Path, folder: Path, name: str, **env: str) -> Server:
    """Make a program of the image (not started), as the user that the image names."""
    port = free_port()
    env |= {"NFS_WATCH_HOST": "127.0.0.1", "NFS_WATCH_PORT": str(port), "NFS_WATCH_REPLICAS": "1"}
    env |= {"PATH": "/app/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["unshare", "--mount", "bash", "-c", SCRIPT, "image", str(root), str(share)]
    argv += [f"{key}={value}" for key, value in env.items()]
    return Server([*argv, "python", "-m", name], folder / f"{name}.log", port)


def owner(pid: int) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    return [line for line in status.splitlines() if line.startswith(("Uid", "CapEff"))]


def test_the_uploader_of_the_image_uploads_a_file(root: Path, share: Path, tmp_path: Path) -> None:
    """As uid 1000, on a read-only root file system, from the start of a session to the sweeper's deletion."""
    with azurite(tmp_path) as connection:
        store = {"AZURE_STORAGE_CONNECTION_STRING": connection, "NFS_WATCH_CONTAINER": "uploads"}
        soon = {"NFS_WATCH_RETENTION": "0.5", "NFS_WATCH_SWEEP_INTERVAL": "0.2", "NFS_WATCH_SETTLE": "0.5"}
        server = program(
            root, share, tmp_path, "uploader", NFS_WATCH_ROOT="/mnt", NFS_WATCH_ORDINAL="0", **store, **soon
        )
        try:
            server.up("/livez")
            assert owner(server.pid) == ["Uid:\t1000\t1000\t1000\t1000", "CapEff:\t0000000000000000"]
            wait_for(lambda: server.answers("/readyz"), "the shard to be ready")
            answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run-1"}, timeout=60)
            assert answer.status_code == 201, answer.text
            file = tmp_path / "a.bin"
            file.write_bytes(b"a" * 1000)
            os.chown(file, 1000, 1000)
            file.rename(share / "run-1/a.bin")
            wait_for(lambda: not list((share / "run-1").iterdir()), "the file to be uploaded and swept")
        finally:
            server.kill()


def test_the_router_of_the_image_answers(root: Path, share: Path, tmp_path: Path) -> None:
    """As uid 1000 and without any capability."""
    server = program(root, share, tmp_path, "router", NFS_WATCH_SHARD_URL="http://127.0.0.1:9/{ordinal}")
    try:
        server.up("/livez")
        assert owner(server.pid) == ["Uid:\t1000\t1000\t1000\t1000", "CapEff:\t0000000000000000"]
    finally:
        server.kill()


def test_the_command_of_the_image_finds_the_router_beside_it(root: Path, share: Path, tmp_path: Path) -> None:
    """As `kubectl exec deploy/nfs-watch-router -- nfs-watch status` starts it, in the router's own environment."""
    server = program(root, share, tmp_path, "router", NFS_WATCH_SHARD_URL="http://127.0.0.1:9/{ordinal}")
    try:
        server.up("/livez")
        argv = [part for part in server.argv if part not in {"python", "-m", "router"}]
        said = json.loads(run(*argv, "nfs-watch", "status", "--json"))
        assert [one["reachable"] for one in said["shards"]] == [False]
    finally:
        server.kill()


def test_the_image_runs_as_a_user_with_a_number(config: dict[str, object]) -> None:
    """The kubelet can check runAsNonRoot only when the user is a number."""
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["python", "-m"]
    assert config["Cmd"] == ["uploader"]


def test_the_image_holds_the_programs_and_no_tools(root: Path) -> None:
    """An intruder finds no compiler and no pip, and the image stays small."""
    app = root / "app"
    programs = {path.name for path in (app / "programs").iterdir()}
    assert programs == {"uploader", "router"}
    tools = {"pip", "pip3", "gcc", "cc", "make", "git", "curl", "wget"}
    found = {
        name for folder in ("app/bin", "usr/bin", "usr/local/bin") for name in tools if (root / folder / name).exists()
    }
    assert not found
    assert not list(app.glob("lib/python3*/site-packages/pip*"))
    assert not [path for path in root.glob("root/**/*") if path.name == "pip.conf"]
    size = sum(path.lstat().st_size for path in app.rglob("*") if not path.is_symlink())
    assert size < 160 * 2**20, f"{size / 2**20:.0f} MiB of programs and dependencies"


def test_nothing_of_the_image_can_be_changed_by_its_user(root: Path) -> None:
    """The programs cannot be altered from within, even where the root file system is writable."""
    writable = [
        p for p in (root / "app").rglob("*") if not p.is_symlink() and (p.stat().st_uid or p.stat().st_mode & 0o022)
    ]
    assert writable == []


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_locked_dependency_has_a_wheel_for_arm64(version: str, tmp_path: Path) -> None:
    """The image has no compiler: each dependency must be pure Python, or a wheel for aarch64 and glibc."""
    report = tmp_path / "report.json"
    argv = [
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    argv += ["--implementation=cp", f"--python-version={version}", "--target", str(tmp_path / "none")]
    argv += [f"--abi={abi}" for abi in (f"cp{version.replace('.', '')}", "abi3", "none")]
    # manylinux_2_17 is manylinux2014; the newest is that of the oldest base in use, Debian 12 and Ubuntu 22.04
    argv += [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 36)]
    argv += ["--quiet", "--report", str(report), "-r", str(TOP / "requirements.lock")]
    run(sys.executable, "-m", "pip", *argv)
    files = [item["download_info"]["url"].rpartition("/")[2] for item in json.loads(report.read_bytes())["install"]]
    assert len(files) >= 40
    assert [name for name in files if not name.endswith(("-none-any.whl", "_aarch64.whl"))] == []
    assert [name for name in files if name.endswith("_aarch64.whl")]

"""The programs on the device's architecture: a session from its start to the sweep, over a kill; qemu runs each process.

The root file system is the image's, with Debian's and the locked wheels' files for arm64 (tests/k8s/arm64-root). The emulator
is named at the start of each program, so nothing has to be registered in the kernel.
"""

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.endpoint.faults import StallSend
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import absent, need
from tests.support.programs import TOP, Server, free_port, wait_for

ROOT = TOP / ".tools/arm64/root"
QEMU = "qemu-aarch64-static"
EMULATED = platform.machine() != "aarch64"
MIB = 1024 * 1024
SLOW = 1200  # seconds; bounds a hang only: emulated, a program takes minutes to start where others have the processors
pytestmark = pytest.mark.timeout(3 * SLOW)
# A mount namespace of its own: the image's root, read-only, with the programs of this tree, the emulator and a share.
SCRIPT = """
set -e
root=$1; share=$2; top=$3; emulator=$4; shift 4
mount --bind "$root" "$root"
mount --bind "$top/uploader" "$root/app/programs/uploader"
mount --bind "$top/router" "$root/app/programs/router"
[ -z "$emulator" ] || mount --bind "$(command -v "$emulator")" "$root/emulator"
mount --bind "$share" "$root/mnt"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec env --ignore-environment "${@:2}" "$(PATH=$PATH:/usr/sbin command -v chroot)" --userspec=1000:1000 --groups= "$root" \
  ${emulator:+/emulator} /app/bin/python -m $1
"""


@pytest.fixture(scope="module")
def root() -> Path:
    need("unshare", "chroot", "debootstrap", *([QEMU] if EMULATED else []))
    if os.geteuid() != 0:
        absent("chroot needs root")
    if not ROOT.exists():
        absent("no root file system for arm64 (make .tools/arm64/ready)")
    return ROOT


def program(root: Path, share: Path, name: str, **env: str) -> Server:
    """Make a program of the image with its arguments (not started), as the user that the image names."""
    port = free_port()
    env |= {"NFS_WATCH_HOST": "127.0.0.1", "NFS_WATCH_PORT": str(port), "NFS_WATCH_REPLICAS": "1"}
    env |= {"PYTHONPATH": "/app/programs", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["unshare", "--mount", "bash", "-c", SCRIPT, "arm64", str(root), str(share), str(TOP)]
    argv += [EMULATED * QEMU, name, *(f"{key}={value}" for key, value in env.items())]
    return Server(argv, share.parent / f"{name.partition(' ')[0]}.log", port)


def up(server: Server, path: str) -> None:
    """Start it and wait until it answers 200 to this path; one answer alone may take long."""
    server.start()

    def answers() -> bool:
        assert server.process is not None
        assert server.process.poll() is None, server.log()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(server.url + path, timeout=SLOW, trust_env=False).status_code == 200
        return False

    wait_for(answers, f"{path} of {server.argv[-1]}", SLOW, 0.5)


@pytest.fixture
def shard(root: Path, share: Path) -> Iterator[tuple[Server, Endpoint]]:
    """A shard, not started, and its store."""
    with Endpoint() as store:
        store.store.create("uploads")
        env = {"NFS_WATCH_ROOT": "/mnt", "NFS_WATCH_ORDINAL": "0", "NFS_WATCH_CONTAINER": "uploads"}
        env |= {"AZURE_STORAGE_CONNECTION_STRING": store.connection_string, "NFS_WATCH_BLOCK_SIZE": str(MIB)}
        env |= {"NFS_WATCH_RETENTION": "0.5", "NFS_WATCH_SWEEP_INTERVAL": "0.2", "NFS_WATCH_SETTLE": "0.5"}
        server = program(root, share, "uploader", **env)
        yield server, store
        server.kill()


def arrive(share: Path, name: str, content: bytes) -> None:
    """Move a finished file into the session's folder."""
    file = share / f".{name}"
    file.write_bytes(content)
    os.chown(file, 1000, 1000)
    file.rename(share / "run-1" / name)


def test_the_root_file_system_is_for_arm64(root: Path) -> None:
    """Python, and each library that is no pure Python: what runs here is what a device runs."""
    compiled = [root / "usr/bin/python3.11", *(root / "app/lib").rglob("*.so")]
    assert len(compiled) > 5
    machines = {int.from_bytes(path.read_bytes()[18:20], "little") for path in compiled}
    assert machines == {183}, "EM_AARCH64 alone"


def test_a_session_lives_through_a_kill_on_arm64(shard: tuple[Server, Endpoint], share: Path) -> None:
    """Small files and a large one; killed as the commit begins, which has no effect; no block is sent twice, and all is swept."""
    server, store = shard
    up(server, "/readyz")
    answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run-1"}, timeout=SLOW)
    assert answer.status_code == 201, answer.text
    commit = store.faults.add(StallSend(3600), Operation.PUT_BLOCK_LIST)
    large = os.urandom(3 * MIB + 5)
    arrive(share, "large.bin", large)
    wait_for(lambda: commit.hits, "the commit", SLOW)
    server.kill()
    assert (share / "run-1/large.bin.processing").exists()
    assert "run-1/large.bin" not in store.store.blobs("uploads")
    sent = store.log.received(Operation.PUT_BLOCK)
    assert sent == len(large)

    up(server, "/readyz")
    small = {f"{number}.bin": bytes([number]) * (1000 + number) for number in range(20)}
    for name, content in small.items():
        arrive(share, name, content)
    wait_for(lambda: not list((share / "run-1").iterdir()), "every file to be uploaded and swept", SLOW)
    assert store.log.received(Operation.PUT_BLOCK) == sent, "blocks were sent again"
    for name, content in {"large.bin": large, **small}.items():
        assert store.store.blob("uploads", f"run-1/{name}").content == content


def test_the_router_its_page_and_the_command_on_arm64(root: Path, share: Path) -> None:
    """The rest of the image."""
    server = program(root, share, "router", NFS_WATCH_SHARD_URL="http://127.0.0.1:9/{ordinal}")
    try:
        up(server, "/livez")
        page = httpx.get(f"{server.url}/", timeout=SLOW)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        shards = httpx.get(f"{server.url}/v1/watch/status", timeout=SLOW).json()["shards"]
        assert [one["reachable"] for one in shards] == [False]
        command = program(root, share, "router.command status --json", NFS_WATCH_URL=server.url)
        command.start()
        assert command.wait(SLOW) == 0, command.log()
        assert [one["reachable"] for one in json.loads(command.log())["shards"]] == [False]
    finally:
        server.kill()


def test_every_dependency_has_a_wheel_for_the_images_python(tmp_path: Path) -> None:
    """The image's own base needs a registry, so that the tests build on another one; what it will ask for is asked here."""
    base = re.search(r"^ARG BASE=python:(\d+)\.(\d+)-slim-trixie$", (TOP / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    wanted = [f"--python-version={base[1]}.{base[2]}", f"--abi=cp{base[1]}{base[2]}", "--abi=abi3", "--abi=none"]
    wanted += [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 42)]  # Debian 13 has glibc 2.41
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    argv += ["--implementation=cp", *wanted, f"--dest={tmp_path}", f"--requirement={TOP / 'requirements.lock'}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.glob("*.whl"))) > 40

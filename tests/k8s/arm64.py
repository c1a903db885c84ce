"""The image for the device's architecture, on a machine of another: qemu runs its programs one by one, as processes."""

import contextlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.need import absent, need

QEMU = "/usr/bin/qemu-aarch64-static"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
ENTRY = "nfs-watch-aarch64"
# An ELF file for aarch64: its first 20 bytes and their mask, as Debian's qemu-user-static gives them.
MAGIC = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def register() -> None:
    """Make the kernel run programs for aarch64. Skips, or fails in CI, where it cannot.

    F opens the emulator now, so that it need not lie in the image's own file system.
    """
    if platform.machine() == "aarch64":
        return
    need(QEMU)
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], capture_output=True, check=False)
    if not (BINFMT / "register").exists():
        absent("binfmt_misc cannot be mounted here")
    if (BINFMT / ENTRY).exists() or (BINFMT / "qemu-aarch64").exists():
        return
    try:
        with contextlib.suppress(FileExistsError):
            (BINFMT / "register").write_text(f":{ENTRY}:M::{MAGIC}:{MASK}:{QEMU}:F")
    except OSError as error:
        absent(f"the kernel takes no emulator for aarch64: {error}")


def make_base(folder: Path) -> None:
    """Unpack a small Debian with Python for arm64 into `folder`.

    Packages are unpacked and not configured: their scripts would run for minutes under emulation, and Python needs none of them.
    """
    packages = "--include=python3,python3-venv,ca-certificates"
    argv = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", packages, "bookworm", str(folder)]
    subprocess.run(argv, check=True, capture_output=True)
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, capture_output=True)
    for rest in ("var/cache/apt", "var/lib/apt/lists", "debootstrap"):
        shutil.rmtree(folder / rest)
    (folder / "tmp").mkdir(exist_ok=True)
    os.chmod(folder / "tmp", 0o1777)

"""The project's image, built from the Dockerfile without a registry or a container engine.

debootstrap makes the base once; the base and the layers are kept in .tools/image.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.programs import TOP

KEPT = TOP / ".tools/image"
BASE = "localhost/nfs-watch-base:bookworm-1"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = ("buildah", "debootstrap")


def run(*argv: str | Path, timeout: float = 600) -> str:
    """Run a command to its end and return what it says."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv}:\n{(done.stdout + done.stderr)[-3000:]}"
    return done.stdout.strip()


class Builder:
    """buildah with a storage of its own, so that the machine's images are left alone."""

    def __init__(self) -> None:
        KEPT.mkdir(parents=True, exist_ok=True)
        self.argv = ["buildah", "--root", str(KEPT / "storage"), "--runroot", "/run/nfs-watch-image"]
        # overlay cannot lie on overlay, as in a container; vfs copies, and works everywhere
        overlay = subprocess.run([*self.argv, "--storage-driver", "overlay", "info"], capture_output=True, check=False)
        self.argv += ["--storage-driver", "vfs" if overlay.returncode else "overlay"]

    def __call__(self, *argv: str | Path) -> str:
        return run(*self.argv, *argv)

    def make_base(self) -> None:
        """Make a small Debian with Python, unless it was kept."""
        if BASE in self("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        folder = KEPT / f"base-{os.getpid()}"
        try:
            packages = "--include=python3,python3-venv,ca-certificates"
            run("debootstrap", "--variant=minbase", packages, "bookworm", folder)
            for cache in ("var/cache/apt", "var/lib/apt/lists"):
                shutil.rmtree(folder / cache)
            # a machine with a certificate authority of its own needs that authority in the build
            shutil.copy(AUTHORITIES, folder / AUTHORITIES.relative_to("/"))
            container = self("from", "scratch")
            self("add", "--quiet", container, folder, "/")
            self("config", "--env", f"PIP_CERT={AUTHORITIES}", container)
            self("commit", "--quiet", "--rm", container, BASE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def build(self, image: str, context: Path = TOP, file: Path = TOP / "Dockerfile") -> None:
        """Build an image on the base; a layer whose sources are the same is taken from the last build."""
        self.make_base()
        argv = ["bud", "--quiet", "--isolation", "chroot", "--layers", "--build-arg", f"BASE={BASE}"]
        self(*argv, "--file", file, "--tag", image, context)

    def prune(self) -> None:
        """Remove what no image needs any more; what an interrupted run still holds stays until it is let go."""
        subprocess.run([*self.argv, "rmi", "--prune"], capture_output=True, check=False)

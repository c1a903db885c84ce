"""The wheel: built from the tree as pip builds it, and run outside of it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.programs import TOP
from uploader.version import VERSION

PACKAGES = ("uploader", "router")
# The build's own requirement, hatchling, comes from the index.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(TOP)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


def test_the_wheel_is_of_this_version_and_holds_every_file_of_both_packages(wheel: Path) -> None:
    """The status page's files and the py.typed markers too."""
    assert wheel.name == f"nfs_watch-{VERSION}-py3-none-any.whl"
    files = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("nfs_watch-")}
    there = {path for package in PACKAGES for path in (TOP / package).rglob("*") if path.is_file()}
    assert files == {str(path.relative_to(TOP)) for path in there if "__pycache__" not in path.parts}
    assert files >= {"router/page.html", "router/page.css", "router/page.js", "router/py.typed", "uploader/py.typed"}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_the_wheel_installs_runs_outside_the_tree(wheel: Path, package: str, tmp_path: Path) -> None:
    """A file that only the tree has would be missed here."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    argv = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env={"HOME": os.devnull}, check=False)
    assert (done.returncode, done.stdout) == (0, f"nfs-watch {package} {VERSION}\n"), done.stderr

"""The wheel: built from the tree as pip builds it, and run outside of it."""

import os
import subprocess
import sys
import sysconfig
import venv
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
    assert files >= {"uploader/web/openapi/contract.json"}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_the_wheel_installs_runs_outside_the_tree(wheel: Path, package: str, tmp_path: Path) -> None:
    """A file that only the tree has would be missed here."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    argv = [sys.executable, "-m", package, "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env={"HOME": os.devnull}, check=False)
    assert (done.returncode, done.stdout) == (0, f"nfs-watch {package} {VERSION}\n"), done.stderr


def test_an_installed_wheel_has_the_command_and_the_contract(wheel: Path, tmp_path: Path) -> None:
    """As `pip install .` and `uv tool install .` leave it; the dependencies are this environment's."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    (packages,) = (tmp_path / "env/lib").glob("python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    told = _run(tmp_path, tmp_path / "env/bin/nfs-watch", "--version")
    assert told == f"nfs-watch {VERSION}\n"
    code = "from uploader.web.openapi import document as d; print(d.document(router=True)['openapi'], d.__file__)"
    assert _run(tmp_path, python, "-c", code).startswith(f"3.1.0 {packages}")


def _run(folder: Path, *argv: str | Path) -> str:
    env = {"HOME": os.devnull}
    return subprocess.run(argv, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout

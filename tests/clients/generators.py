"""The generators of clients that the Makefile installs, and the commands for them as docs/api.md prints them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.need import absent
from tests.support.programs import NODE, TOP

HERE = Path(__file__).parent
TOOLS = TOP / ".tools/clients"
PYTHON = TOOLS / "python"
API = TOP / "docs/api.md"


def blocks(language: str) -> list[str]:
    """Return what docs/api.md prints in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", API.read_text(), re.MULTILINE | re.DOTALL)


def workplace(folder: Path, url: str) -> dict[str, str]:
    """Make a folder in which the printed commands work, and return their environment. `url`: the service's."""
    if not (TOOLS / "ready").exists():
        absent("the generators of clients are not there: make .tools/clients/ready")
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(TOOLS / "node_modules")
    programs = [
        PYTHON / "go/bin",
        PYTHON / "bin",
        NODE,
        Path(sys.executable).parent,
        os.environ.get("PATH", os.defpath),
    ]
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    env = {**kept, "PATH": ":".join(map(str, programs)), "PYTHONPATH": str(PYTHON), "NFS_WATCH": url}
    env |= {"npm_config_offline": "true", "npm_config_update_notifier": "false"}
    env |= {"CGO_ENABLED": "0", "GOENV": "off", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    return env | {"GOCACHE": str(TOOLS / "go"), "GOPATH": str(folder / "gopath")}


def printed(program: str) -> str:
    """Return the one command of docs/api.md that begins with this program, or with npx and this program."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    (found,) = [line for line in lines if re.match(rf"(npx )?{re.escape(program)}\b", line)]
    return found


def run(command: str, folder: Path, env: dict[str, str]) -> str:
    """Run the command there; return what it printed. It has to succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}"
    return done.stdout

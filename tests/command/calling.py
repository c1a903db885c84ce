"""Calls the command nfs-watch as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage import Coverage

from tests.support.cluster import Cluster
from tests.support.programs import HANG, TOP, Program


def command() -> list[str]:
    """The command; it is measured where the tests are, for no test calls it inside pytest."""
    measured = [
        "coverage",
        "run",
        "--parallel-mode",
        f"--rcfile={TOP}/pyproject.toml",
        f"--data-file={TOP}/.tools/coverage",
    ]
    return [sys.executable, "-m", *([*measured, "-m"] if Coverage.current() else []), "router.command"]


def store(it: Cluster) -> dict[str, str]:
    """The variables that verify takes."""
    return {"NFS_WATCH_CONTAINER": "uploads", "AZURE_STORAGE_CONNECTION_STRING": it.connection}


def environment(url: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NFS_WATCH_", "AZURE_"))}
    return {**kept, "NFS_WATCH_URL": url, "PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm", **(more or {})}


def call(url: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*command(), *arguments],
        env=environment(url, env),
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def begun(it: Cluster, output: Path, *arguments: str) -> Program:
    """Start it; its output goes to a file. Ctrl-C is not ignored, even where this process was started so."""
    argv = ["env", "--default-signal=INT", *command(), *arguments]
    program = Program(argv, output, {"NFS_WATCH_URL": it.router.url})
    program.start()
    return program


def on_a_terminal(url: str, *arguments: str, columns: int = 120) -> tuple[int, str]:
    """Run it to its end on a terminal of its own; return the exit code and what the terminal was sent."""
    pid, terminal = os.forkpty()
    if not pid:  # the child
        os.chdir(TOP)
        os.execve(sys.executable, [*command(), *arguments], environment(url, {"COLUMNS": str(columns)}))
    said = bytearray()
    while True:
        try:
            some = os.read(terminal, 65536)
        except OSError:  # EIO: the child's end is closed
            break
        if not some:
            break
        said += some
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def lines(text: str) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in text.splitlines()]

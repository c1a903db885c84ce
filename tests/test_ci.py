"""The workflow and the commit hook run our own commands, on the Pythons that pyproject.toml names."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from tests.support.programs import TOP

JOBS = yaml.safe_load((TOP / ".github/workflows/ci.yml").read_text())["jobs"]
PYTHONS = [
    found[1]
    for line in tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
]


def test_the_workflow_runs_on_every_python_that_is_supported() -> None:
    """A version that is promised to users is tested."""
    assert PYTHONS
    assert JOBS["check"]["strategy"]["matrix"]["python"] == PYTHONS
    assert JOBS["test"]["strategy"]["matrix"]["python"] == PYTHONS


def test_the_workflow_runs_on_the_devices_architecture() -> None:
    """A Jetson is arm64."""
    assert "ubuntu-24.04-arm" in JOBS["check"]["strategy"]["matrix"]["machine"]
    assert JOBS["test-arm64"]["runs-on"] == "ubuntu-24.04-arm"


def test_each_command_of_the_workflow_is_ours() -> None:
    """Whatever fails there can be run here with the same command."""
    targets = re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
    for job in JOBS.values():
        for command in (step["run"] for step in job["steps"] if "run" in step):
            if made := re.search(r"make (\w+)", command):
                assert made[1] in targets, command
            else:
                assert os.access(TOP / command, os.X_OK), command


def test_the_commit_hook_runs_what_make_lint_runs() -> None:
    """A commit that passes the hook passes `make lint`."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (TOP / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    linted = set(re.findall(r"@\$\(BIN\)/([^>|\n]*[^>|\s])", recipe[1]))
    (local,) = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    assert {hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]} == linted


def test_what_the_tests_need_is_asked_for_on_its_own_architecture_only(tmp_path: Path) -> None:
    """User-mode Linux exists for x86 only: a machine with arm64 is not asked for it."""
    for name, line in {"dpkg": "echo arm64", "dpkg-query": "false", "id": "echo 1000"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([TOP / "tests/system-packages"], capture_output=True, text=True, env=env, check=False)
    missing = re.findall(r"missing system packages: (.*) \(", done.stderr)[0].split()
    assert "buildah" in missing
    assert "user-mode-linux" not in missing
    assert not [word for word in missing if "[" in word]

"""`make cluster` says what is missing before it builds or waits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kubernetes.missing import K3S, for_the_cluster, for_the_images, load_command
from tests.need import need
from tests.support.image import PROGRAMS
from tests.support.manifests import KUBECTL
from tests.support.programs import TOP, free_port

LOAD = {"CLUSTER_LOAD": "load --quickly"}
CONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: c, context: {{cluster: c, user: ""}}}}]
current-context: c
"""


def programs(folder: Path, *names: str) -> str:
    """Make a PATH on which there are these programs only."""
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_nothing_is_missing_where_all_is_there(tmp_path: Path) -> None:
    assert not for_the_images(LOAD, programs(tmp_path, *PROGRAMS, "load"), user=0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_not_installed_is_named(name: str, tmp_path: Path) -> None:
    path = programs(tmp_path, *{*PROGRAMS, "load"} - {name})
    assert for_the_images(LOAD, path, user=0).startswith(f"Not installed: {name}.")


def test_building_as_another_user_than_root_is_refused(tmp_path: Path) -> None:
    assert "needs root" in for_the_images(LOAD, programs(tmp_path, *PROGRAMS, "load"), user=1000)


def test_a_cluster_that_takes_no_image_is_refused(tmp_path: Path) -> None:
    """Nobody can know how; for k3s it is known."""
    path = programs(tmp_path, *PROGRAMS)
    assert for_the_images({}, path, user=0).startswith("CLUSTER_LOAD is not set")
    assert for_the_images({"CLUSTER_LOAD": ""}, path, user=0).startswith("CLUSTER_LOAD is not set")
    assert "not there: load" in for_the_images(LOAD, path, user=0)
    programs(tmp_path, "k3s")
    assert not for_the_images({}, path, user=0)
    assert load_command({}, path) == K3S.split()
    assert load_command(LOAD, path) == ["load", "--quickly"]


def test_without_a_configuration_there_is_no_cluster() -> None:
    """And the command itself says so, and ends."""
    assert for_the_cluster({}).startswith("KUBECONFIG is not set")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kubernetes"], env={}, cwd=TOP, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("KUBECONFIG is not set")
    assert done.stderr.count("\n") == 1


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    need(KUBECTL)
    config = tmp_path / "config"
    config.write_text(CONFIG.format(port=free_port()))
    said = for_the_cluster({"KUBECONFIG": str(config)})
    assert said.startswith(f"No cluster answers where KUBECONFIG={config} says: ")
    assert "127.0.0.1" in said


@pytest.mark.parametrize(("classes", "missing"), [("", "no default storage class"), ("default", "")])
def test_a_cluster_that_makes_no_volume_is_refused(
    classes: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overlay for trying out takes a volume of the default class."""
    items = [{"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}]
    answer = tmp_path / "answer"
    answer.write_text(f"#!/bin/sh\necho '{{\"items\": {json.dumps(items if classes else [])}}}'\n")
    answer.chmod(0o755)
    monkeypatch.setattr("tests.kubernetes.missing.KUBECTL", str(answer))
    assert missing in for_the_cluster({"KUBECONFIG": "x"})
    assert bool(for_the_cluster({"KUBECONFIG": "x"})) == bool(missing)

"""Clients that generators make of the contract compile strictly, and drive a session at the running programs.

Each is made by the command that docs/api.md prints, for a program of ours (drive.*) that makes every call of a session.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from tests.clients.generators import HERE, printed, run, workplace
from tests.support.cluster import Cluster, cluster


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("generated"), 2) as it:
        yield it


def driven(site: Cluster, said: str, name: str) -> dict[str, Any]:
    """Check what a client saw of its session against the store; return the rest."""
    seen: dict[str, Any] = json.loads(said.splitlines()[-1])
    with ContainerClient.from_connection_string(site.connection, "uploads") as container:
        blobs = [[blob.name, blob.size] for blob in container.list_blobs(f"{name}/") if "/.receipts/" not in blob.name]
    assert seen.pop("receipts") == blobs == [[f"{name}/a.bin", 1000], [f"{name}/b.bin", 70000]]
    return seen


SEEN = {
    "alive": "alive\n",
    "again": "already-active",
    "missing": "unknown-file",
    "stop": "draining",
    "same start": True,
    "sent": 2,
    "bytes": 71000,
    "drained": True,
    "all receipts": True,
}


def test_openapi_typescript_and_its_compiler_at_its_strictest(site: Cluster, tmp_path: Path) -> None:
    """A wrong field, state or code in a caller's program is found by the compiler."""
    env = workplace(tmp_path, site.router.url)
    shutil.copy(HERE / "drive.mts", tmp_path)
    run(printed("openapi-typescript"), tmp_path, env)
    strictly = "--noUncheckedIndexedAccess --exactOptionalPropertyTypes"
    run(printed("tsc").replace("client.mts", f"{strictly} drive.mts"), tmp_path, env)
    assert driven(site, run(f"node drive.mjs {site.router.url} {site.root} run-ts", tmp_path, env), "run-ts") == SEEN


def test_openapi_python_client_and_mypy_at_its_strictest(site: Cluster, tmp_path: Path) -> None:
    """Times, states and codes have types of their own."""
    env = workplace(tmp_path, site.router.url)
    shutil.copy(HERE / "drive.py", tmp_path)
    said = run(printed("openapi-python-client"), tmp_path, env)
    assert "arning" not in said  # it leaves out what it does not understand
    run("mypy --strict --follow-imports silent drive.py", tmp_path, env)
    path = f"{tmp_path}:{env['PYTHONPATH']}"
    said = run(f"python drive.py {site.router.url} {site.root} run-py", tmp_path, env | {"PYTHONPATH": path})
    assert driven(site, said, "run-py") == SEEN


def test_openapi_generator_for_go(site: Cluster, tmp_path: Path) -> None:
    """A language whose numbers have sizes, and whose enums share one namespace."""
    env = workplace(tmp_path, site.router.url)
    run(printed("openapi-generator-cli"), tmp_path, env)
    client = tmp_path / "nfswatch"
    (client / "drive").mkdir()
    shutil.copy(HERE / "drive.go", client / "drive/main.go")
    run("go build -o ../driver ./drive", client, env)
    seen = driven(site, run(f"./driver {site.router.url} {site.root} run-go", tmp_path, env), "run-go")
    assert seen == SEEN | {"largest": 2**63 - 1}

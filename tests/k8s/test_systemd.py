"""The units for a device without Kubernetes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from router import settings as router_settings
from tests.need import need
from tests.support.programs import TOP
from uploader.settings import Settings, load

UNITS = TOP / "k8s/systemd"
SHARD, ROUTER = UNITS / "nfs-watch@.service", UNITS / "nfs-watch-router.service"


def environment(unit: Path, ordinal: int) -> dict[str, str]:
    """Return what the unit's program is given."""
    lines = (UNITS / "settings.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for line in re.findall(r"^Environment=(.*)$", unit.read_text(), re.MULTILINE):
        given |= dict(part.split("=", 1) for part in line.replace("%i", str(ordinal)).split())
    return given


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """systemd-analyze knows each line, and the programs and files that they name exist on the device."""
    need("systemd-analyze")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in (SHARD, ROUTER):
        text = unit.read_text().replace("/opt/nfs-watch/bin/python", str(program))
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / "nfs-watch@0.service"), str(tmp_path / "nfs-watch@1.service"), str(tmp_path / ROUTER.name)]
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *names]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C"})
    assert done.returncode == 0, done.stderr
    assert "nfs-watch" not in done.stderr, done.stderr


def test_the_units_run_as_the_owner_of_the_files_whatever_its_name() -> None:
    """Ubuntu gives this number to a device's first user, so that no other can have it."""
    owner = re.search(r"^owner=(\d+)", (TOP / "k8s/nfs-export.sh").read_text(), re.MULTILINE)
    assert owner
    for unit in (SHARD, ROUTER):
        assert re.findall(r"^User=(.*)$", unit.read_text(), re.MULTILINE) == [owner[1]]


@pytest.mark.parametrize("ordinal", [0, 1])
def test_a_shards_unit_gives_settings_that_the_program_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ordinal: int
) -> None:
    """Two shards on one machine differ in their number and their port."""
    for name, value in (environment(SHARD, ordinal) | {"NFS_WATCH_ROOT": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    settings: Settings = load()
    assert (settings.ordinal, settings.port, settings.replicas, settings.host) == (
        ordinal,
        8180 + ordinal,
        2,
        "127.0.0.1",
    )


def test_the_routers_unit_finds_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URL leads to the ports of the shards' units."""
    for name, value in environment(ROUTER, 0).items():
        monkeypatch.setenv(name, value)
    settings = router_settings.load()
    found = [settings.shard_url.format(ordinal=ordinal) for ordinal in range(2)]
    assert found == [f"http://127.0.0.1:{environment(SHARD, ordinal)['NFS_WATCH_PORT']}" for ordinal in range(2)]
    assert settings.port == 8080

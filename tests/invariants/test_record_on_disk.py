"""Records survive a power cut: content is synced before it gets its name, and the folder after each change."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from uploader.session import Session, State
from uploader.sessions.records import Records

ONE = Session("run", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note in order which file is synced, and which name is made or removed."""
    seen: list[str] = []

    def what(name: str) -> str:
        if name == str(tmp_path):
            return "folder"
        return "record" if name.endswith("/run.json") else "temporary"

    def watched(call: Callable[..., Any], told: Callable[..., str]) -> Callable[..., Any]:
        def then(*args: Any, **options: Any) -> Any:
            said = told(*args)
            result = call(*args, **options)
            seen.append(said)
            return result

        return then

    def synced(fd: int) -> str:
        name = os.readlink(f"/proc/self/fd/{fd}")
        size = "" if os.path.isdir(name) or os.stat(name).st_size else " (empty)"
        return f"sync {what(name)}{size}"

    monkeypatch.setattr(os, "fsync", watched(os.fsync, synced))
    for call in ("link", "rename"):
        told = lambda source, target, call=call: f"{call} {what(str(source))} {what(str(target))}"  # noqa: E731
        monkeypatch.setattr(os, call, watched(getattr(os, call), told))
    monkeypatch.setattr(os, "unlink", watched(os.unlink, lambda name: f"unlink {what(str(name))}"))
    return seen


def test_a_new_record(tmp_path: Path, steps: list[str]) -> None:
    """The caller's 201 is true even after a power cut."""
    assert Records(tmp_path, 0).create(ONE)
    assert [step for step in steps if step != "unlink temporary"] == [
        "sync temporary",
        "link temporary record",
        "sync folder",
    ]


def test_a_changed_record(tmp_path: Path, steps: list[str]) -> None:
    """A stop that was answered is not undone by a power cut."""
    records = Records(tmp_path, 0)
    records.create(ONE)
    steps.clear()
    records.replace(replace(ONE, state=State.DRAINING))
    assert steps == ["sync temporary", "rename temporary record", "sync folder"]


def test_a_removed_record(tmp_path: Path, steps: list[str]) -> None:
    """A record that came back after a power cut would start a session that nobody asked for."""
    records = Records(tmp_path, 0)
    records.create(ONE)
    steps.clear()
    records.remove("run")
    assert steps == ["unlink record", "sync folder"]

"""Which events say that a file is finished."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.programs import wait_for
from uploader.discovery.watch import Watch
from uploader.share.paths import opened_path


class Heard:
    """Notes what arrives, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rescans = threading.Event()

    def arrived(self, folder: str, name: str) -> None:
        self.names.append(f"{folder}/{name}")

    def rescan(self) -> None:
        self.rescans.set()


@pytest.mark.parametrize(("closes", "heard"), [(True, ["a/appended", "a/renamed"]), (False, ["a/renamed"])])
def test_a_close_is_no_sign_where_producers_close_and_reopen(tmp_path: Path, closes: bool, heard: list[str]) -> None:
    """A rename always is one. Events come in order, so the file that was closed first cannot come later."""
    listener, watch = Heard(), Watch(closes=closes)
    folder = opened_path(str(tmp_path))
    watch.add(listener, "a", folder)
    os.close(folder)
    (tmp_path / "appended").write_bytes(b"one line")
    (tmp_path.parent / f"{tmp_path.name}.elsewhere").write_bytes(b"whole")
    (tmp_path.parent / f"{tmp_path.name}.elsewhere").rename(tmp_path / "renamed")
    wait_for(lambda: "a/renamed" in listener.names, "the rename to be heard")
    watch.drop(listener)
    assert listener.names == heard

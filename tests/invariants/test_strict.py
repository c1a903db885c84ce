"""What somebody puts into `.nfs-watch` hangs nothing, ends nothing, and is said once."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.endpoint.server import Endpoint
from tests.invariants.bed import Bed
from tests.share.test_entry import ODD, dangling, endless, pipe
from tests.support.programs import Server, shard, wait_for
from uploader.session import Session, State
from uploader.sessions.records import Records
from uploader.share.mark import FOR_EVER, Mark
from uploader.share.mount import OWN, Share

ONE = Session("run-1", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Server]:
    """A shard that is not started yet."""
    (tmp_path / "share/.nfs-watch/sessions").mkdir(parents=True)
    with ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint())
        program = shard(tmp_path, tmp_path / "share", endpoint.connection_string)
        stack.callback(program.kill)
        yield program


def test_odd_records_hang_and_end_no_program(program: Server, tmp_path: Path) -> None:
    """A pipe held every start and stop, a link to /dev/zero ended every shard; now both are named, and work goes on."""
    records = tmp_path / "share/.nfs-watch/sessions"
    pipe(records / "a-pipe.json")
    endless(records / "b-zero.json")
    (records / ".tmp-0-folder").mkdir()
    (records / "c-large.json").touch()
    os.truncate(records / "c-large.json", 2**33)
    program.up()
    url = f"{program.url}/v1/watch"
    assert httpx.post(f"{url}/start", json={"session": "run-1"}, timeout=60).status_code == 201
    refused = httpx.post(f"{url}/start", json={"session": "a-pipe"}, timeout=60)
    assert refused.status_code == 503
    assert "the record of a-pipe: not a regular file but a pipe" in refused.json()["detail"]
    assert httpx.get(f"{url}/status", params={"session": "b-zero"}, timeout=60).status_code == 503
    (tmp_path / "share/run-1/x").write_bytes(b"x")
    wait_for(lambda: "file.deleted" in program.log(), "the file to be sent and swept")
    assert httpx.post(f"{url}/stop", json={"session": "run-1"}, timeout=60).status_code == 202
    wait_for(lambda: "session.swept" in program.log(), "the session to end")
    assert program.log().count("record.unreadable") == 3
    assert (records / "c-large.json.unreadable").exists()


@pytest.mark.parametrize("put", ODD)
def test_an_odd_record_stays_and_is_logged_once(
    tmp_path: Path, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its session may run: what cannot be read is not gone."""
    records = Records(tmp_path, 0)
    records.create(replace(ONE, name="run-2"))
    put(tmp_path / "run-1.json")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            found = records.all()
            assert (list(found.sessions), list(found.unreadable)) == (["run-2"], ["run-1"])
    assert [one.message for one in caplog.records] == ["record.unreadable"]
    assert os.path.lexists(tmp_path / "run-1.json")


def test_reading_one_record_changes_nothing(tmp_path: Path) -> None:
    """A status must never move a file on the share: not even a damaged record."""
    records = Records(tmp_path, 0)
    (tmp_path / "run-1.json").write_bytes(b"{")
    assert records.get("run-1") is None
    assert os.listdir(tmp_path) == ["run-1.json"]
    assert records.mended("run-1") is None
    assert os.listdir(tmp_path) == ["run-1.json.unreadable"]


def test_a_record_that_is_valid_under_its_own_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that takes RUN-1 for run-1 gives the running session's record for the other's."""
    records = Records(tmp_path, 0)
    records.create(ONE)
    monkeypatch.setattr(Records, "_path", lambda self, name: self.folder / f"{name.lower()}.json")
    assert records.mended("RUN-1") is None
    assert records.get("run-1") == ONE


@pytest.mark.parametrize("put", ODD)
def test_with_an_odd_mark_every_file_settles(
    bed: Bed, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows when claims were given back, so that no sign counts; giving back goes on all the same."""
    put(bed.root / OWN / "given-back/run")
    mark = Mark(bed.share, "run")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            mark.set()
            assert mark.until() == FOR_EVER
    assert [one.message for one in caplog.records] == ["record.unreadable"]
    mark.remove()


@pytest.mark.parametrize("put", [pipe, dangling, endless, Path.mkdir])
def test_an_odd_clock_tells_the_time(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """The server gives its time to anything that is touched."""
    (tmp_path / OWN).mkdir()
    put(tmp_path / OWN / "clock-0")
    share = Share(tmp_path, 0, 5)
    (tmp_path / "x").touch()
    assert share.server_time() >= (tmp_path / "x").stat().st_mtime_ns
    share.close()


@pytest.mark.parametrize("name", [OWN, f"{OWN}/sessions", f"{OWN}/given-back"])
def test_our_folders_are_no_links(tmp_path: Path, name: str) -> None:
    """A link could lead the records to another share, or out of this one."""
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "share"
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError, match="no link to one"):
        Share(root, 0, 5)
    assert os.listdir(tmp_path / "elsewhere") == []

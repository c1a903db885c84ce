"""When the records are read: their folder's times tell, within what such times can tell."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clock import Clock, tick
from uploader.session import Session, State
from uploader.sessions import records as module
from uploader.sessions.records import Listed, Records
from uploader.share import entry
from uploader.share.listings import TICK

ONE = Session("run-1", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z", (".bin",))
DRAINING, SECOND = replace(ONE, state=State.DRAINING), replace(ONE, name="run-2")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the records that were read, in order."""
    reads: list[str] = []
    read = entry.read

    def counted(path: str) -> bytes | None:
        reads.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(entry, "read", counted)
    return reads


@pytest.fixture
def records(tmp_path: Path) -> Records:
    (tmp_path / "sessions").mkdir()
    records = Records(tmp_path / "sessions", 0)
    records.create(ONE)
    return records


def known(records: Records, clock: Clock) -> Listed:
    """Read the records twice, so far apart that they are known; the next change gives their folder another time."""
    records.all()
    clock.now += TICK
    listed = records.all()
    tick(records.folder.parent / "clock", records.folder.stat().st_mtime_ns)
    return listed


def test_records_that_have_not_changed_are_not_read_again(records: Records, clock: Clock, reads: list[str]) -> None:
    """A shard looks every two seconds: with 1,000 sessions that must not be 1,000 reads each time."""
    listed = known(records, clock)
    reads.clear()
    clock.now += module.READ_AGAIN - 1
    assert records.all() == listed
    assert reads == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda other: other.create(SECOND), {"run-1": ONE, "run-2": SECOND}),
        (lambda other: other.replace(DRAINING), {"run-1": DRAINING}),
        (lambda other: other.remove("run-1"), {}),
    ],
    ids=["created", "replaced", "removed"],
)
def test_what_another_shard_changes_is_seen_at_the_next_look(
    records: Records, clock: Clock, change: Callable[[Records], None], expected: dict[str, Session]
) -> None:
    """Each way to change a record changes the folder."""
    known(records, clock)
    change(Records(records.folder, 1))
    assert records.all().sessions == expected


def test_a_second_change_within_one_tick_of_the_shares_clock_is_seen(
    records: Records, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some exports have times of whole seconds: after the second change the folder looks the same."""
    monkeypatch.setattr(records, "_look", lambda: (0, 0, 0, 0))
    records.all()
    clock.now += 2
    records.replace(DRAINING)
    assert records.all().sessions == {"run-1": DRAINING}


def test_a_record_that_was_edited_in_place_is_read_after_some_time(records: Records, clock: Clock) -> None:
    """An editor may write into the file, which leaves the folder as it was."""
    known(records, clock)
    (records.folder / "run-1.json").write_bytes(replace(ONE, owner=3).to_json())
    clock.now += module.READ_AGAIN
    assert records.all().sessions["run-1"].owner == 3


def test_a_record_that_can_be_read_again_is_seen_at_the_next_look(
    records: Records, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions change without a trace in the folder."""
    with monkeypatch.context() as patch:
        patch.setattr(entry, "read", lambda path: (_ for _ in ()).throw(PermissionError(13, "no", path)))
        for _ in range(2):
            assert list(records.all().unreadable) == ["run-1"]
            clock.now += TICK
    assert records.all().sessions == {"run-1": ONE}

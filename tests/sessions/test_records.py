"""Session records: whole or absent, created once, and never taken for gone because they cannot be read."""

import errno
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from uploader.errors import ShareLost
from uploader.session import Session, State
from uploader.sessions import records as module
from uploader.sessions.records import Records
from uploader.share import entry

ONE = Session("run-1", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z", (".bin",))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path, 0)


def refuse(error: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return refused


def test_a_record_is_read_as_it_was_written(records: Records) -> None:
    """Every field survives the disk, also after a change; removing twice does no harm."""
    assert records.create(ONE)
    assert records.get("run-1") == ONE
    draining = replace(ONE, state=State.DRAINING, owner=3)
    records.replace(draining)
    assert records.all().sessions == {"run-1": draining}
    records.remove("run-1")
    records.remove("run-1")
    assert records.get("run-1") is None
    assert list(records.folder.iterdir()) == []


def test_the_second_to_create_a_record_changes_nothing(records: Records) -> None:
    """The caller learns that the session exists, and the first owner keeps it."""
    assert records.create(ONE)
    assert not records.create(replace(ONE, owner=1))
    assert records.get("run-1") == ONE
    assert [path.name for path in records.folder.iterdir()] == ["run-1.json"]


def test_a_temporary_file_that_cannot_be_removed_does_not_undo_a_start(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is linked: a refused start would run. The next process of this ordinal removes the other name."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse(errno.ETIMEDOUT))
        assert records.create(ONE)
    assert records.get("run-1") == ONE
    assert len(list(records.folder.iterdir())) == 2
    Records(records.folder, 0)
    assert [path.name for path in records.folder.iterdir()] == ["run-1.json"]


def create_many(folder: Path, ordinal: int) -> list[str]:
    records = Records(folder, ordinal)
    names = [f"run-{number}" for number in range(200)]
    return [name for name in names if records.create(replace(ONE, name=name, owner=ordinal))]


def test_of_two_processes_exactly_one_creates_each_record(tmp_path: Path) -> None:
    """Two shards that start 200 sessions at once never both believe that they made one."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        first, second = pool.map(create_many, [tmp_path] * 2, [0, 1])
    assert not set(first) & set(second)
    assert len(first) + len(second) == 200
    owners = {name: record.owner for name, record in Records(tmp_path, 0).all().sessions.items()}
    assert owners == dict.fromkeys(first, 0) | dict.fromkeys(second, 1)


def test_a_link_whose_reply_was_lost_is_our_own(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server made the link, the client repeated it and was told that the name exists."""
    link = os.link

    def twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert records.create(ONE)
    assert [path.name for path in records.folder.iterdir()] == ["run-1.json"]


def test_a_link_that_fails_leaves_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error of the share no session exists, and no temporary file."""
    monkeypatch.setattr(os, "link", refuse(5))
    with pytest.raises(OSError, match="Input/output"):
        records.create(ONE)
    assert list(records.folder.iterdir()) == []


def test_what_a_full_disk_cut_off_does_not_pile_up(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old record stays whole, and the half-written file is removed."""
    records.create(ONE)
    monkeypatch.setattr(os, "fsync", refuse(28))
    with pytest.raises(OSError, match="No space"):
        records.replace(replace(ONE, state=State.STOPPED))
    assert records.get("run-1") == ONE
    assert [path.name for path in records.folder.iterdir()] == ["run-1.json"]


def test_a_process_removes_what_its_own_ordinal_left_and_nothing_else(tmp_path: Path) -> None:
    """Another shard may be writing its temporary file now; 1 is not taken for 10."""
    for name in (".tmp-1-77-0", ".tmp-10-77-0", ".tmp-0-1-0", "run-1.json"):
        (tmp_path / name).write_bytes(ONE.to_json())
    records = Records(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-0-1-0", ".tmp-10-77-0", "run-1.json"]
    assert list(records.all().sessions) == ["run-1"]


def test_two_processes_of_one_ordinal_never_write_under_one_name(tmp_path: Path) -> None:
    """Both have the same process id, each in its container; one was paused just before its rename."""
    paused = Records(tmp_path, 0)
    paused.create(ONE)
    temporary = paused._written(replace(ONE, state=State.DRAINING))
    successor = Records(tmp_path, 0)
    begun = [successor._written(replace(ONE, name=f"run-{number}")) for number in range(2, 5)]
    assert temporary not in begun
    assert len(set(begun)) == 3
    with pytest.raises(FileNotFoundError):
        os.rename(temporary, tmp_path / "run-1.json")
    assert successor.get("run-1") == ONE


@pytest.mark.parametrize(("call", "method"), [("link", "create"), ("rename", "replace")])
def test_a_write_whose_file_a_twin_has_removed_fails_and_changes_nothing(
    records: Records, monkeypatch: pytest.MonkeyPatch, call: str, method: str
) -> None:
    """A second process of the ordinal removes temporary files as it starts: the write must not half succeed."""
    records.create(replace(ONE, name="run-2"))
    real = getattr(os, call)

    def after_the_twin(source: Path, target: Path) -> None:
        Records(records.folder, 0)
        real(source, target)

    monkeypatch.setattr(os, call, after_the_twin)
    name = "run-1" if method == "create" else "run-2"
    with pytest.raises(FileNotFoundError):
        getattr(records, method)(replace(ONE, name=name, owner=7))
    assert records.all().sessions == {"run-2": replace(ONE, name="run-2")}
    assert [path.name for path in records.folder.iterdir()] == ["run-2.json"]


def test_a_record_is_created_although_a_twin_has_removed_the_file(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file is removed just after the link: the record is there and is ours."""
    link = os.link

    def before_the_twin(source: Path, target: Path) -> None:
        link(source, target)
        Records(records.folder, 0)

    monkeypatch.setattr(os, "link", before_the_twin)
    assert records.create(ONE)
    assert records.get("run-1") == ONE


def test_a_file_in_the_way_of_a_new_record_is_never_removed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file of the same random name belongs to someone else."""
    monkeypatch.setattr(secrets, "token_hex", lambda _: "same")
    theirs = Path(records._written(ONE))
    for write in (records.create, records.replace):
        with pytest.raises(FileExistsError):
            write(replace(ONE, owner=7))
    assert theirs.read_bytes() == ONE.to_json()
    assert [path.name for path in records.folder.iterdir()] == [theirs.name]


def test_a_rename_that_fails_leaves_nothing(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old record stays, and no temporary file is left."""
    records.create(ONE)
    monkeypatch.setattr(os, "rename", refuse(5))
    with pytest.raises(OSError, match="Input/output"):
        records.replace(replace(ONE, state=State.STOPPED))
    assert records.get("run-1") == ONE
    assert [path.name for path in records.folder.iterdir()] == ["run-1.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"run-1"',
        b"\xff" * 10,
        b"[" * 100_000,
        ONE.to_json()[:-20],
        ONE.to_json().replace(b"active", b"paused"),
        ONE.to_json().replace(b"run-1", b"run-2"),
        ONE.to_json().replace(b'"owner":0', b'"owner":-1'),
        ONE.to_json().replace(b'"owner":0', b'"owner":1e308'),
        ONE.to_json().replace(b'"owner":0', b'"owner":null'),
        ONE.to_json().replace(b".bin", b"bin"),
    ],
)
def test_a_record_that_cannot_be_understood_is_put_aside_and_said(
    records: Records, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken record stops no other session, is kept for a person to read, and its name can be used again."""
    for number in ("", "1"):
        (records.folder / "run-1.json").write_bytes(content)
        (records.folder / "run-2.json").write_bytes(replace(ONE, name="run-2").to_json())
        with caplog.at_level(logging.ERROR):
            assert list(records.all().sessions) == ["run-2"]
        assert (records.folder / f"run-1.json.unreadable{number}").read_bytes() == content
    assert [record.message for record in caplog.records if record.name == module.__name__] == ["record.unreadable"] * 2
    assert records.create(ONE)


def test_a_record_that_cannot_be_read_now_stays_and_stops_no_other(
    records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    """The record is not gone: a shard that runs this session must not think so."""
    records.create(replace(ONE, name="run-2"))
    (records.folder / "run-1.json").mkdir()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            found = records.all()
            assert list(found.sessions) == ["run-2"]
            assert list(found.unreadable) == ["run-1"]
    assert [record.message for record in caplog.records if record.name == module.__name__] == ["record.unreadable"]
    (records.folder / "run-1.json").rmdir()
    records.create(ONE)
    found = records.all()
    assert sorted(found.sessions) == ["run-1", "run-2"]
    assert not found.unreadable


def test_a_record_replaced_while_it_is_read_is_read_again(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS the file that was open is gone and the name leads to another: that is no error."""
    records.create(ONE)
    read, failures = entry._read, [116, 116]

    def stale(path: str, most: int) -> bytes:
        if failures:
            raise OSError(failures.pop(), "Stale file handle")
        return read(path, most)

    monkeypatch.setattr(entry, "_read", stale)
    assert records.get("run-1") == ONE


def test_records_whose_folder_is_gone_are_a_lost_share(records: Records) -> None:
    """The folder was there at the start: its loss must not look like an empty list (I6)."""
    records.folder.rmdir()
    with pytest.raises(ShareLost, match="gone from the share"):
        records.all()

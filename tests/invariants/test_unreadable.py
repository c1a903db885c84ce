"""What cannot be read of one session stops no other: it is shown with its reason, and tried again (I7)."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from uploader.errors import NotReady, ShareLost
from uploader.session import Session, State
from uploader.sessions.service import Service
from uploader.share import entry
from uploader.share.mount import OWN

BEGAN = "2026-01-01T00:00:00.000Z"
Read = Callable[..., bytes | None]


def others(service: Service, *sessions: str) -> None:
    for name in sessions:
        service.records.create(Session(name, State.ACTIVE, 0, BEGAN))
        (Path(service.share.root) / name).mkdir()


def failing(error: int, *names: str) -> Read:
    read = entry.read

    def refused(path: str, most: int = entry.MOST) -> bytes | None:
        if os.path.basename(path) in names:
            raise OSError(error, os.strerror(error), path)
        return read(path, most)

    return refused


def shown(service: Service) -> dict[str, str]:
    answer = service.status_now()
    assert answer
    return {one.session: one.error for one in answer.shards[0].unreadable or ()}


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ELOOP, errno.EINVAL])
def test_a_record_that_cannot_be_read_stops_no_other_and_is_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    others(service, "a", "b", "c")
    service.reconciled = True
    with monkeypatch.context() as patch:
        patch.setattr(entry, "read", failing(error, "b.json"))
        service.reconcile()
        assert sorted(service.runs) == ["a", "c", "run"]
        assert shown(service) == {"b": f"the record of b: {os.strerror(error)}"}
        with pytest.raises(NotReady, match="the record of b"):
            service.status("b")
    service.reconcile()
    assert (sorted(service.runs), shown(service)) == (["a", "b", "c", "run"], {})


def test_receipts_that_cannot_be_read_stop_no_other_session_and_are_shown(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe, a folder or a link where a session's journals are."""
    others(service, "a", "b", "c")
    service.reconciled = True
    journals = Path(service.share.root) / OWN / "receipts" / "b"
    journals.parent.mkdir(exist_ok=True)
    journals.write_bytes(b"no folder")
    for _ in range(2):
        service.reconcile()
    assert sorted(service.runs) == ["a", "c", "run"]
    assert list(shown(service)) == ["b"]
    assert "Not a directory" in shown(service)["b"]
    with pytest.raises(NotReady, match="b cannot be resumed yet: Not a directory"):
        service.status("b")
    assert [one.message for one in caplog.records].count("record.unreadable") == 1
    journals.unlink()
    service.reconcile()
    assert (sorted(service.runs), shown(service)) == (["a", "b", "c", "run"], {})


def test_a_record_that_cannot_be_written_stops_no_other_session(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of a shard that was scaled away: of one the new owner cannot be recorded."""
    service.reconciled = True
    for name in "a", "b", "c":
        service.records.create(Session(name, State.ACTIVE, 7, BEGAN))
        (Path(service.share.root) / name).mkdir()
    replaced = service.records.replace

    def refused(session: Session) -> None:
        if session.name == "b":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        replaced(session)

    with monkeypatch.context() as patch:
        patch.setattr(service.records, "replace", refused)
        service.reconcile()
        assert sorted(service.runs) == ["a", "c", "run"]
        assert shown(service) == {"b": "Disk quota exceeded"}
    service.reconcile()
    assert (sorted(service.runs), shown(service)) == (["a", "b", "c", "run"], {})


def test_a_share_that_fails_is_not_taken_for_one_bad_record(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise ShareLost("gone")

    monkeypatch.setattr(entry, "read", failing(errno.EIO, "run.json"))
    monkeypatch.setattr(service.share, "probe", lost)
    with pytest.raises(ShareLost):
        service.reconcile()


def test_a_result_that_cannot_be_read_hides_no_other(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.stop("run", drain=False)
    bed.walk()
    service.start("second", None, None)
    result = service.results.get("run")
    assert result
    result.session = "other"
    service.results.write(result)
    monkeypatch.setattr(entry, "read", failing(errno.EIO, "other.json"))
    assert [one.session for one in service.ended(10, None).results] == ["run"]


def test_an_old_result_that_cannot_be_removed_keeps_no_other(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.stop("run", drain=False)
    bed.walk()
    result = service.results.get("run")
    assert result
    for name in "a", "b", "c":
        result.session = name
        service.results.write(result)
    unlink = os.unlink

    def refused(path: str) -> None:
        if path.endswith("/b.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", refused)
    service.results.remove_old(-1)
    assert [one.session for one in service.ended(10, None).results] == ["b"]

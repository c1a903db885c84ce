"""A shard runs what the records say, whoever wrote them; and a record that is gone is no stopped session (I6)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.invariants.bed import Bed
from uploader.cluster.replicas import FixedReplicas
from uploader.errors import NotOwner, ShareLost
from uploader.session import State
from uploader.sessions.service import Service
from uploader.sweep.seal import Sealed
from uploader.web.openapi.models import SessionState


def test_a_record_that_is_gone_ends_the_process(service: Service) -> None:
    """An active session's record never goes by itself: another share may be mounted, so the process ends."""
    (service.records.folder / "run.json").unlink()
    with pytest.raises(ShareLost, match="record of session run is gone"):
        service.reconcile()


def test_a_stopped_session_that_a_second_process_has_swept_ends_nothing(service: Service) -> None:
    """Of two processes of one ordinal, the slower one sees the record of a stopped session vanish."""
    service.stop("run", drain=False)
    (service.records.folder / "run.json").unlink()
    service.reconcile()
    assert service.runs == {}


def test_records_that_are_gone_because_another_share_is_mounted_give_that_as_the_reason(
    bed: Bed, service: Service, tmp_path: Path
) -> None:
    """The operator reads the cause, not its consequence."""
    discovery = service.runs["run"].discovery
    assert discovery
    discovery.stop()  # it would notice too
    bed.root.rename(tmp_path / "away")
    bed.root.mkdir()
    with pytest.raises(ShareLost, match="no longer the share"):
        service._loop()


def test_a_record_that_cannot_be_read_is_not_gone(service: Service) -> None:
    """An error of reading leaves the session running, for the next turn may read it."""
    path = service.records.folder / "run.json"
    path.unlink()
    path.mkdir()
    service.reconcile()
    assert service.runs["run"].discovery


@pytest.mark.parametrize("state", [State.STOPPED, State.DRAINING])
def test_a_run_becomes_what_another_shard_wrote_of_it(bed: Bed, service: Service, state: State) -> None:
    """A session that came back from another shard in another state is run in that state."""
    bed.write("x", b"content")  # nobody works here: a drain does not end
    first = service.runs["run"]
    changed = replace(first.session, state=state)
    service.records.replace(changed)
    service.reconcile()
    run = service.runs["run"]
    assert run.session == changed
    assert run is not first
    assert first.files.cancelled
    assert first.discovery
    assert first.discovery.thread
    assert not first.discovery.thread.is_alive()
    assert bool(run.discovery) == (state is State.DRAINING)


def test_a_session_that_another_shard_owns_now_is_left(service: Service) -> None:
    """Its former owner stops its work on the session within one turn of the loop."""
    run = service.runs["run"]
    service.records.replace(replace(run.session, owner=1))
    service.replicas = FixedReplicas(2)
    service.reconcile()
    assert service.runs == {}
    assert run.files.cancelled


def test_a_claim_that_cannot_be_given_back_does_not_hold_the_stop(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is someone else's (fs.protected_hardlinks) stays claimed; the next start takes it up."""
    run = service.runs["run"]
    bed.write("x.processing", b"content")
    with monkeypatch.context() as patch:
        patch.setattr("os.link", _refused)
        ended = service.stop("run", drain=False)
    assert ended.state is SessionState.STOPPED
    assert run.files.failure("x")
    assert bed.names() == ["x.processing"]


def test_a_session_that_is_adopted_while_it_is_ended_stays_with_its_new_owner(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving claims back takes long: a shard that adopts the session in that time keeps it."""
    run = service.runs["run"]
    assert run.discovery
    adopted = replace(run.session, owner=1)
    monkeypatch.setattr(run.files, "wait_idle", lambda _: service.records.replace(adopted))
    with pytest.raises(NotOwner):
        service.stop("run", drain=False)
    assert service.records.get("run") == adopted


@pytest.mark.parametrize("change", [{"state": State.ACTIVE}, {"state": State.DRAINING}, {"owner": 1}])
def test_a_session_that_is_started_or_adopted_while_it_is_swept_is_not_forgotten(
    service: Service, change: dict[str, Any]
) -> None:
    """The sweeper's "nothing is left" comes after the record was changed, and must not remove it."""
    service.stop("run", drain=False)
    run = service.runs["run"]
    changed = replace(run.session, **change)
    service.records.replace(changed)
    service.swept("run", Sealed({}))
    assert service.records.get("run") == changed
    assert service.runs["run"] is run
    service.records.replace(run.session)
    service.swept("run", Sealed({}))
    assert service.records.get("run") is None
    assert service.runs == {}


def _refused(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")

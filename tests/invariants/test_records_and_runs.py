"""What runs follows what the records say, whoever wrote them; and a record that is gone is no stopped session (I6)."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.invariants.bed import BLOCK, Bed, watch
from uploader.backlog import Backlog
from uploader.errors import ShareLost
from uploader.replicas import FixedReplicas
from uploader.service import Service
from uploader.session import State
from uploader.share import OWN
from uploader.store import Records


@pytest.fixture
def service(bed: Bed) -> Iterator[Service]:
    records = Records(bed.root / OWN / "sessions", 0)
    service = Service(bed.settings, bed.share, records, FixedReplicas(1), watch(), Backlog(BLOCK), bed.sweeper)
    service.start("run", None, None)
    yield service
    for run in service.runs.values():
        if run.discovery:
            run.discovery.stop()


def test_a_record_that_is_gone_ends_the_process(service: Service) -> None:
    (service.records.folder / "run.json").unlink()
    with pytest.raises(ShareLost, match="record of session run is gone"):
        service._reconcile()


def test_a_record_that_cannot_be_read_is_not_gone(service: Service) -> None:
    path = service.records.folder / "run.json"
    path.unlink()
    path.mkdir()
    service._reconcile()
    assert service.runs["run"].discovery


@pytest.mark.parametrize("state", [State.STOPPED, State.DRAINING])
def test_a_run_becomes_what_another_shard_wrote_of_it(bed: Bed, service: Service, state: State) -> None:
    """It had the session meanwhile, and gave it back in another state."""
    bed.write("x", b"content")  # nobody works here: a drain does not end
    first = service.runs["run"]
    changed = replace(first.session, state=state)
    service.records.replace(changed)
    service._reconcile()
    run = service.runs["run"]
    assert run.session == changed
    assert run is not first
    assert first.files.cancelled
    assert first.discovery
    assert first.discovery.thread
    assert not first.discovery.thread.is_alive()
    assert bool(run.discovery) == (state is State.DRAINING)


def test_a_session_that_another_shard_owns_now_is_left(service: Service) -> None:
    run = service.runs["run"]
    service.records.replace(replace(run.session, owner=1))
    service.replicas = FixedReplicas(2)
    service._reconcile()
    assert service.runs == {}
    assert run.files.cancelled


def test_a_claim_that_cannot_be_given_back_does_not_hold_the_stop(
    bed: Bed, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.protected_hardlinks: the file is someone else's. It stays claimed, and the next start takes it up."""
    run = service.runs["run"]
    bed.write("x.processing", b"content")
    with monkeypatch.context() as patch:
        patch.setattr("os.link", _refused)
        answer, ended = service.stop("run", drain=False)
    assert ended
    assert answer["state"] == "stopped"
    assert "x" in run.files.failures
    assert bed.names() == ["x.processing"]


def _refused(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")

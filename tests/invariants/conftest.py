"""Fixtures that the invariants' tests share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.invariants.bed import Bed, Deaf
from uploader.cluster.replicas import FixedReplicas
from uploader.sessions.records import Records
from uploader.sessions.service import Service
from uploader.share.mount import OWN


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make(tmp_path: Path, stack: ExitStack) -> Callable[..., Bed]:
    """Return a function that makes a bed with these settings; the beds are closed after the test."""

    def made(of: Bed | None = None, **settings: Any) -> Bed:
        (tmp_path / "share").mkdir(exist_ok=True)
        bed = of.again(**settings) if of else Bed(tmp_path / "share", **settings)
        stack.callback(bed.close)
        return bed

    return made


@pytest.fixture
def bed(make: Callable[..., Bed]) -> Bed:
    return make()


@pytest.fixture
def pair(make: Callable[..., Bed]) -> tuple[Bed, Bed]:
    """Two owners of one session, which have only the share and the store in common."""
    one = make()
    return one, make(one)


@pytest.fixture
def service(bed: Bed) -> Iterator[Service]:
    records = Records(bed.root / OWN / "sessions", 0)
    bed.backlog.remove(bed.files)
    service = Service(bed.settings, bed.share, records, FixedReplicas(1), Deaf(), bed.backlog, bed.completed)
    bed.serve(service)
    service.start("run", None, None)
    yield service
    for run in service.runs.values():
        if run.discovery:
            run.discovery.stop()

"""A backlog of 100,000 files: whether the last tenth is as fast as the first, and whether memory stays flat."""

from dataclasses import dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.endpoint import discard
from tests.bench.goals import OURS, Goal
from tests.bench.measured import Measured
from tests.bench.ours import Sample, ours
from tests.bench.row import Asked, Row
from tests.bench.work import Work

WORK = Work(
    "backlog",
    "backlog of 100,000 files of 1 kB, plain http",
    100_000,
    1000,
    {},
    [],
    tls=False,
    quick={"count": 10_000},
)


@dataclass(frozen=True)
class Backlog:
    """Files/s in the first and the last tenth; resident bytes after the first tenth, and the most after that."""

    total: Measured
    first: float
    last: float
    early: int
    late: int

    def goals(self) -> list[Goal]:
        return [
            Goal("rate in the last tenth, of the first's", lambda _: self.last / self.first, least=0.9),
            Goal("resident memory at most, of that after the first tenth", lambda _: self.late / self.early, most=1.05),
        ]


def measure(asked: Asked) -> list[str]:
    """Measure it, and return the tables."""
    with WORK.made(asked) as folder:
        found = _measured(folder, asked.scratch)
    return [*report.table({OURS: found.total}), "", *report.goals(found.goals(), {})]


def _measured(folder: Path, scratch: Path) -> Backlog:
    """Upload the folder's files once, and sample speed and memory during the upload."""
    samples: list[Sample] = []
    with discard(scratch, tls=False) as endpoint:
        total = ours(folder, scratch, endpoint, sampled=samples.append)
    first, last = _moment(samples, 0.1), _moment(samples, 0.9)
    begin = next(when for when, requests, _ in samples if requests)
    tenth = total.files / 10
    rates = tenth / (first[0] - begin), tenth / (samples[-1][0] - last[0])
    return Backlog(total, *rates, first[2], max(memory for when, _, memory in samples if when >= first[0]))


def _moment(samples: list[Sample], part: float) -> Sample:
    """Return the first sample at which this part of the requests had arrived."""
    return next(sample for sample in samples if sample[1] >= part * samples[-1][1])


ROW = Row(WORK.name, WORK.title, measure)

"""The goals of the benchmark: a bound on a ratio between two clients of one run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.measured import Measured

Results = Mapping[str, Measured]
OURS, AZCOPY, RCLONE, RAW, MD5 = "nfs-watch", "azcopy", "rclone", "raw sender", "MD5 on one core"
STAGED = "nfs-watch, staging"


@dataclass(frozen=True)
class Goal:
    """A value of the results and where it has to be."""

    text: str
    value: Callable[[Results], float]
    least: float | None = None
    most: float | None = None

    def met(self, results: Results) -> bool:
        value = self.value(results)
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def bound(self) -> str:
        return f">= {self.least}" if self.most is None else f"<= {self.most}"


def faster(peer: str, least: float) -> Goal:
    """Expect at least so many times the peer's bytes per second."""
    return Goal(f"speed, of {peer}'s", lambda it: it[OURS].rate / it[peer].rate, least=least)


def less_cpu(peer: str, most: float) -> Goal:
    return Goal(f"CPU, of {peer}'s", lambda it: it[OURS].cpu / it[peer].cpu, most=most)


def less_memory(peer: str, most: float) -> Goal:
    return Goal(f"peak memory, of {peer}'s", lambda it: it[OURS].memory / it[peer].memory, most=most)


def near_limit(least: float) -> Goal:
    """Expect nearly the speed of the slower of MD5 on one core and a sender that does nothing else."""
    text = f"speed, of the slower of {MD5} and {RAW}"
    return Goal(text, lambda it: it[OURS].rate / min(it[RAW].rate, it[MD5].rate), least=least)


def best_files_rate(least: float) -> Goal:
    text = "files/s, of the better peer's"
    return Goal(text, lambda it: it[OURS].files_rate / max(it[AZCOPY].files_rate, it[RCLONE].files_rate), least=least)


def cpu_a_file(most: float) -> Goal:
    """Expect at most so many milliseconds of CPU for each file."""
    return Goal("CPU a file, ms", lambda it: it[OURS].cpu / it[OURS].files * 1000, most=most)


def known(text: str, value: float, *, least: float | None = None, most: float | None = None) -> Goal:
    """Expect this of a value that was measured already."""
    return Goal(text, lambda _: value, least, most)


def staging_costs(most: float) -> Goal:
    return Goal("time with staging, of that without", lambda it: it[STAGED].wall / it[OURS].wall, most=most)

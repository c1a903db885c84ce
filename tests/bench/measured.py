"""The measurements of one run of one client."""

import os
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """Wall and CPU in seconds, peak memory in bytes, and the work done."""

    wall: float
    cpu: float
    memory: int
    files: int
    content: int
    requests: int = 0

    @property
    def rate(self) -> float:
        """Megabytes (10^6) per second."""
        return self.content / self.wall / 1e6

    @property
    def files_rate(self) -> float:
        return self.files / self.wall


def median(runs: list[Measured]) -> Measured:
    """Return the medians of wall, CPU and memory."""
    return replace(
        runs[0],
        wall=statistics.median(run.wall for run in runs),
        cpu=statistics.median(run.cpu for run in runs),
        memory=round(statistics.median(run.memory for run in runs)),
    )


def command(argv: list[str], env: Mapping[str, str], output: Path, files: int, content: int) -> Measured:
    """Run a program to its end; wait4 reports its usage."""
    with output.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(argv, env={**os.environ, **env}, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{argv[0]} ended with {process.returncode}:\n{output.read_text()[-2000:]}"
    return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, files, content)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int, field: str = "VmHWM") -> int:
    """Return a running process's memory in bytes: VmHWM is the peak, VmRSS the present amount."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

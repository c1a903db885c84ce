"""`make test`: lint, the tests, and the cases over NFS beside them, each even after failures of the others; one summary."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import IO

PYTEST = [sys.executable, "-m", "pytest"]
AGAIN = ".venv/bin/python -m pytest"
SLOWEST = 20
WORST = ("passed", "skipped", "failed")


@dataclass(frozen=True)
class Part:
    """A command; a part that runs pytest also reports the result of each test.

    `beside`: it runs beside the other parts, and what it says is printed after them.
    """

    name: str
    command: Sequence[str]
    tests: bool = True
    beside: bool = False


PARTS = (
    Part("lint", ["make", "--no-print-directory", "lint"], tests=False),
    # coverage counts code inside pytest only: the programs end by SIGKILL and os._exit, which leave no data
    Part(
        "tests",
        [
            *PYTEST,
            "--cov",
            "--cov-report=",
            "--cov-fail-under=0",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "--ignore=tests/nfs",
        ],
    ),
    Part("coverage", [sys.executable, "-m", "coverage", "report", "--skip-covered", "--show-missing"], tests=False),
    Part("nfs", [*PYTEST, "tests/nfs"], beside=True),  # guest kernels of their own, which mostly wait
)


@dataclass(frozen=True)
class Result:
    """The worst of a test's set-up, call and tear-down, or the end of a whole part."""

    outcome: str
    why: str
    again: str
    seconds: float = 0.0


def run(part: Part, output: IO[bytes] | None = None) -> dict[str, Result]:
    """Run the part; return the results of its tests, or a result of its own when it failed without a failed test.

    `output`: the file that takes what it says, in place of this program's own output.
    """
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder, "reports")
        options = ["-p", "tests.reports"] if part.tests else []
        environment = os.environ | {"REPORTS": str(reports)}
        errors = subprocess.STDOUT if output else None
        command = [*part.command, *options]
        code = subprocess.run(command, env=environment, stdout=output, stderr=errors, check=False).returncode
        results = read(reports) if reports.exists() else {}
    outcomes = {result.outcome for result in results.values()}
    if code and "failed" not in outcomes:
        results[part.name] = Result("failed", f"ended with {code}", shlex.join(part.command))
    elif part.tests and "passed" not in outcomes and "failed" not in outcomes:
        results[part.name] = Result("failed", "no test was run", shlex.join(part.command))
    return results


def read(reports: Path) -> dict[str, Result]:
    """Read what tests/reports.py wrote: the worst of each test, the first of equals."""
    results: dict[str, Result] = {}
    seconds = defaultdict[str, float](float)
    for line in map(json.loads, reports.read_text().splitlines()):
        name, outcome = line["test"], line["outcome"]
        if name not in results or WORST.index(outcome) > WORST.index(results[name].outcome):
            results[name] = Result(outcome, line["why"], f"{AGAIN} {shlex.quote(name)}")
        seconds[name] += line["seconds"]
    return {name: replace(result, seconds=seconds[name]) for name, result in results.items()}


def slowest(results: dict[str, Result]) -> str:
    """Name the files of tests that took longest: with them the time of a run can be kept low."""
    files = defaultdict[str, float](float)
    for name, result in results.items():
        files[name.partition("::")[0]] += result.seconds
    longest = sorted(files.items(), key=itemgetter(1), reverse=True)[:SLOWEST]
    return "\n".join(f"{seconds:6.0f} s {file}" for file, seconds in longest if seconds >= 1)


def summary(results: dict[str, Result]) -> str:
    """Name every failure and skip, how to run it again, and end with a line that CI reads."""
    lines = ["", "=" * 30 + " summary of all parts " + "=" * 30]
    for outcome in ("skipped", "failed"):
        for name, result in sorted(results.items()):
            if result.outcome == outcome:
                lines += [f"{outcome.upper()} {name}: {result.why}", f"    {result.again}"]
    counts = Counter(result.outcome for result in results.values())
    return "\n".join([*lines, ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))])


def main(parts: Sequence[Part] = PARTS) -> int:
    """Run every part, print the summary, and return the exit code."""
    results: dict[str, Result] = {}
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())
        beside = [(part, stack.enter_context(tempfile.TemporaryFile())) for part in parts if part.beside]
        running = [threads.submit(run, part, output) for part, output in beside]
        for part in parts:
            if not part.beside:
                print(f"--- {part.name}", flush=True)
                results |= run(part)
        for (part, output), ended in zip(beside, running, strict=True):
            results |= ended.result()
            output.seek(0)
            print(f"--- {part.name}", output.read().decode(errors="replace"), sep="\n", flush=True)
    print("--- slowest files", slowest(results), summary(results), sep="\n", flush=True)
    return int(any(result.outcome == "failed" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Run the benchmark: `make bench`, or with ARGS="--quick", ARGS="--only small-0 large"."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import backlog, report, resume
from tests.bench.endpoint import discard, stats
from tests.bench.goals import MD5, OURS, RAW
from tests.bench.measured import Measured, median
from tests.bench.raw import large_rate, small_rate
from tests.bench.work import WORKS, Work

ALL = [*WORKS, resume.WORK, backlog.WORK]
REMARKS = Path(__file__).parent / "remarks.md"


def main() -> None:
    """Measure the works that were asked for, print the results, and write the page after a full run."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end what was started, remove what was written
    sections: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="nfs-watch-bench-") as name:
        scratch = Path(name)
        ceiling = _ceiling(scratch)
        print(f"endpoint's ceiling: {ceiling}", flush=True)
        for work in ALL:
            if not options.only or work.name in options.only:
                section = _section(work, scratch, options.repeats, quick=options.quick)
                print("\n".join(section), flush=True)
                sections += section
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    if not options.quick and not options.only:
        report.write(
            [*report.machine(ceiling), *sections], options.repeats, REMARKS.read_text() if REMARKS.exists() else ""
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    names = [work.name for work in ALL]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="less of everything, once; the page is not written")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each client (default 3)")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


def _ceiling(scratch: Path) -> str:
    parts = []
    for tls in (True, False):
        with discard(scratch, tls=tls) as endpoint:
            large, small = large_rate(endpoint), small_rate(endpoint)
        parts.append(
            f"{'TLS' if tls else 'plain'} {large / 1e6:,.0f} MB/s in blocks of 8 MiB, {small:,.0f} requests/s of 20 kB"
        )
    return "; ".join(parts)


def _section(work: Work, scratch: Path, repeats: int, *, quick: bool) -> list[str]:
    """Measure one work and describe it."""
    folder = scratch / "files"
    work.files(folder, quick=quick)
    try:
        lines = _tables(work, folder, scratch, repeats)
    finally:
        shutil.rmtree(folder)
    return [f"## {work.title}{' (less of it: --quick)' if quick else ''}", "", *lines, ""]


def _tables(work: Work, folder: Path, scratch: Path, repeats: int) -> list[str]:
    if work is resume.WORK:
        return resume.measure(folder, scratch, repeats)
    if work is backlog.WORK:
        found = backlog.measure(folder, scratch)
        results, goals = {OURS: found.total}, found.goals()
    else:
        results, goals = _results(work, folder, scratch, repeats), work.goals
    return [*report.table(results), "", *report.goals(goals, results)]


def _results(work: Work, folder: Path, scratch: Path, repeats: int) -> dict[str, Measured]:
    """Let the clients take turns, and return the medians."""
    runs: dict[str, list[Measured]] = {name: [] for name in work.clients}
    with discard(scratch, tls=work.tls, latency=work.latency) as endpoint, endpoint.client() as client:
        for _ in range(repeats):
            for name, run in work.clients.items():
                before = stats(client)[1]
                runs[name].append(run(folder, scratch, endpoint))
                came = stats(client)[1] - before
                assert name in {RAW, MD5} or came >= runs[name][-1].content, f"{name} sent only {came} bytes"
    return {name: median(each) for name, each in runs.items()}


if __name__ == "__main__":
    main()

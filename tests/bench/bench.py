"""Run the benchmark: `make bench`, or some of its rows: `make bench ROWS=small-0,slow`; see --help for the rest."""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from tests.bench import backlog, behind, cache, costs, gathered, idle, nfs, report, resume, slow
from tests.bench.endpoint import discard, stats
from tests.bench.goals import MD5, RAW
from tests.bench.measured import Measured, median
from tests.bench.raw import large_rate, small_rate
from tests.bench.row import Asked, Row
from tests.bench.work import WORKS, Work

REMARKS = Path(__file__).parent / "remarks.md"


def main() -> None:
    """Measure the rows that were asked for, print the results, and write the page after a full run."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end what was started, remove what was written
    sections: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="nfs-watch-bench-") as name:
        before = _tree(options.before, Path(name)) if options.before else None
        asked = Asked(Path(name), 1 if options.quick else options.repeats, options.quick, before)
        ceiling = _ceiling(asked.scratch)
        print(f"endpoint's ceiling: {ceiling}", flush=True)
        for row in ROWS:
            if not options.only or row.name in options.only:
                less = " (less of it: --quick)" if asked.quick else ""
                section = [f"## {row.title}{less}", "", *_measured(row, asked), ""]
                print("\n".join(section), flush=True)
                sections += section
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    if not options.quick and not options.only:
        report.write(
            [*report.machine(ceiling), *sections], options.repeats, REMARKS.read_text() if REMARKS.exists() else ""
        )


def _measured(row: Row, asked: Asked) -> list[str]:
    """Measure a row; one that fails keeps no other from being measured."""
    try:
        return row.measure(asked)
    except Exception as error:  # noqa: BLE001 whatever it was, it is printed
        traceback.print_exc()
        return [f"**Not measured**: {str(error).partition(chr(10))[0] or type(error).__name__}"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", type=partial(_named, names), metavar="NAME,...", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="less of everything, once; the page is not written")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each client (default 3)")
    parser.add_argument("--before", metavar="COMMIT", help="an older state of this project, measured beside this one")
    return parser.parse_args()


def _named(names: list[str], text: str) -> set[str]:
    """Return the rows that a list with commas names."""
    found = set(text.split(","))
    if wrong := sorted(found.difference(names)):
        raise argparse.ArgumentTypeError(f"no row {', '.join(wrong)}; there are {', '.join(names)}")
    return found


def _tree(commit: str, scratch: Path) -> Path:
    """Unpack an older state of this project."""
    tree = scratch / "before"
    tree.mkdir()
    packed = subprocess.run(["git", "archive", commit, "uploader"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--directory", str(tree)], input=packed, check=True)
    return tree


def _ceiling(scratch: Path) -> str:
    parts = []
    for tls in (True, False):
        with discard(scratch, tls=tls) as endpoint:
            large, small = large_rate(endpoint), small_rate(endpoint)
        parts.append(
            f"{'TLS' if tls else 'plain'} {large / 1e6:,.0f} MB/s in blocks of 8 MiB, {small:,.0f} requests/s of 20 kB"
        )
    return "; ".join(parts)


def _compared(work: Work, asked: Asked) -> list[str]:
    """Measure one work with all its clients."""
    with work.made(asked) as folder:
        results = _results(work, folder, asked)
    return [*report.table(results), "", *report.goals(work.goals, results)]


def _results(work: Work, folder: Path, asked: Asked) -> dict[str, Measured]:
    """Let the clients take turns, and return the medians."""
    runs: dict[str, list[Measured]] = {name: [] for name in work.clients}
    with discard(asked.scratch, tls=work.tls, latency=work.latency) as endpoint, endpoint.client() as client:
        for _ in range(asked.repeats):
            for name, run in work.clients.items():
                before = stats(client)[1]
                runs[name].append(run(folder, asked.scratch, endpoint))
                came = stats(client)[1] - before
                assert name in {RAW, MD5} or came >= runs[name][-1].content, f"{name} sent only {came} bytes"
    return {name: median(each) for name, each in runs.items()}


ROWS = [
    *(Row(work.name, work.title, partial(_compared, work)) for work in WORKS),
    nfs.ROW,
    slow.ROW,
    behind.ROW,
    resume.ROW,
    cache.ROW,
    idle.IDLE,
    idle.RECORDS,
    gathered.ROW,
    backlog.ROW,
    costs.RECEIPTS,
    costs.LEASE,
    nfs.COSTS,
]

if __name__ == "__main__":
    main()

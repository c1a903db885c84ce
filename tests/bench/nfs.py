"""Small files through a real NFS mount: in a guest kernel with an NFS server and a client of its own (tests/nfs)."""

import json
import os
import shutil
import time
from typing import Any

from tests.bench import report
from tests.bench.goals import OURS, Goal, Results
from tests.bench.measured import Measured, median
from tests.bench.row import Asked, Row
from tests.nfs.guest import Guest

ITEM = "tests/bench/in_guest.py"
BEFORE = f"{OURS} before"
WITHOUT = f"{OURS}, without receipts"
LIMIT = 1200  # seconds; bounds a hang only
COUNT, LATENCY = 2000, 0.01
HEAD = f"""{COUNT:,} files of 20 kB on a mount of version 4.2, plain http, {LATENCY * 1000:.0f} ms latency, in a guest kernel with one slow processor: only the
ratios count. Calls are those to the NFS server, from the start to the last `.completed`.
"""
COSTS_HEAD = f"""{COUNT:,} files of 20 kB on a mount of version 4.2 in a guest kernel, from the start to the last deletion, retention and sweep interval 1 s. Calls are
those to the NFS server.
"""
COLUMNS = ["client", "wall s", "files/s", "CPU a file, ms", "calls a file", "WRITE and COMMIT, in all"]


def measure(asked: Asked) -> list[str]:
    """Compare the clients."""
    results, rows = _measured(asked, costs=False)
    return [HEAD, *report.plain(COLUMNS, rows), "", *report.goals(_goals(results), results)]


def costs(asked: Asked) -> list[str]:
    """Count the calls that receipts make: most of the others depend on time, and differ from run to run."""
    _, rows = _measured(asked, costs=True)
    return [COSTS_HEAD, *report.plain(COLUMNS, rows)]


def _measured(asked: Asked, *, costs: bool) -> tuple[Results, list[list[str]]]:
    """Boot a guest, let the clients take turns there; return the results, and the rows of their table.

    `costs`: shards with and without receipts, in place of the clients.
    """
    guest = Guest([ITEM])
    try:
        before = guest.host / "before"  # the guest sees the host's disk, and none of its memory
        if asked.before:
            shutil.copytree(asked.before, before)
        wanted = {
            "before": str(before) if asked.before else "",
            "count": COUNT // (10 if asked.quick else 1),
            "latency": LATENCY,
            "repeats": min(asked.repeats, 2),
            "azcopy": "" if costs else os.environ["AZCOPY"],
            "costs": costs,
        }
        (guest.host / "asked.new").write_text(json.dumps(wanted))
        (guest.host / "asked.new").rename(guest.host / "asked")
        runs = _found(guest)
    finally:
        guest.close()
    results = {name: median([Measured(**run["measured"]) for run in each]) for name, each in runs.items()}
    calls = {name: each[-1]["calls"] / results[name].files for name, each in runs.items()}
    writes = {name: str(each[-1]["writes"]) for name, each in runs.items()}
    return results, [
        [
            name,
            f"{it.wall:.1f}",
            f"{it.files_rate:.0f}",
            f"{it.cpu / it.files * 1000:.2f}",
            f"{calls[name]:.1f}",
            writes[name],
        ]
        for name, it in results.items()
    ]


def _found(guest: Guest) -> dict[str, list[dict[str, Any]]]:
    end, path = time.monotonic() + LIMIT, guest.host / "result"
    while guest.process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    assert path.exists(), f"the guest measured nothing:\n{guest.last_words()}"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
    return found


def _goals(results: Results) -> list[Goal]:
    if BEFORE not in results:
        return []
    return [
        Goal("files/s, of those before", lambda it: it[OURS].files_rate / it[BEFORE].files_rate, least=1.0),
        Goal("CPU a file, of that before", lambda it: it[OURS].cpu / it[BEFORE].cpu, most=1.0),
    ]


ROW = Row("nfs", "small files of 20 kB through a real NFS mount", measure)
COSTS = Row("receipts-nfs", "what receipts cost on a real NFS mount", costs)

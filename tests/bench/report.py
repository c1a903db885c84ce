"""The tables, printed on the terminal as they are measured and written to docs/benchmarks.md."""

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.goals import OURS, Goal, Results
from tests.bench.measured import Measured

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
HEAD = """# Benchmarks

This page is written by `make bench`; run it for the figures of your own machine. Every client takes the same files from memory
(tmpfs) and sends them over loopback to an endpoint that reads and forgets (tests/bench/discard.c), so that neither
disk nor network is measured. Clients run in turn, {repeats} times; the tables show medians.

- nfs-watch is measured end to end, from `POST /v1/watch/start` until the last file is named `.completed`: discovery,
  claim, upload of blocks of 8 MiB with a CRC64 that the service verifies, commit, rename; default settings. Its CPU is that of the running
  service during the upload, its memory the peak since the service started.
- azcopy and rclone are measured from start to exit, with their default settings, rclone with 16 transfers. Where the work
  says "whole-file MD5", azcopy runs with --put-md5 and rclone with its checksum; elsewhere without.
- A goal that was missed is marked; what bounds it is in the last section. A row for which no client is named is nfs-watch's.
- The raw sender calls sendall with the same blocks from four threads and does nothing else.

"""


def table(results: Results) -> list[str]:
    """Return a work's results as a markdown table."""
    lines = ["| client | wall s | MB/s | files/s | CPU s | peak MiB |", "|---|---:|---:|---:|---:|---:|"]
    return lines + [_line(name, run) for name, run in results.items()]


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return any cells as a markdown table: words on the left, figures on the right."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _line(name: str, run: Measured) -> str:
    cells = [f"{run.wall:.2f}", f"{run.rate:.0f}", f"{run.files_rate:.0f}" if run.files > 1 else "", "", ""]
    if run.memory:
        cells[3:] = [f"{run.cpu:.2f}", f"{run.memory / 2**20:.0f}"]
    return f"| {name} | {' | '.join(cells)} |"


def goals(wanted: list[Goal], results: Results) -> list[str]:
    """Return the goals and the values reached as a markdown table; nothing where there are no goals."""
    if not wanted:
        return []
    lines = [f"| goal for {OURS} | bound | reached | |", "|---|---|---:|---|"]
    for goal in wanted:
        verdict = "met" if goal.met(results) else "**missed**"
        lines.append(f"| {goal.text} | {goal.bound} | {goal.value(results):.2f} | {verdict} |")
    return lines


def machine(ceiling: str) -> list[str]:
    """Describe the machine and the programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("azure-core", "azure-storage-blob", "awscrt")
    )
    return [
        "## The machine",
        "",
        f"- {os.cpu_count()} cores ({_cpu()}), {memory:.0f} GiB of memory, Linux {platform.release().split('-')[0]}, {platform.machine()}",
        f"- Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {packages}",
        f"- {_version(os.environ['AZCOPY'], '--version')}, rclone {_version('rclone', 'version')}",
        f"- the endpoint's own ceiling, with a raw sender: {ceiling}",
        "",
    ]


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(*argv: str) -> str:
    words = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return words.removeprefix("rclone ")


def write(sections: list[str], repeats: int, remarks: str) -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(HEAD.format(repeats=repeats) + "\n".join(sections).rstrip() + "\n" + remarks)

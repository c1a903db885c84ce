"""Pages that quote docs/benchmarks.md have the figures that it has."""

import re

import pytest

from tests.bench.work import WORKS
from tests.scaling.test_page import measured
from tests.support.programs import TOP

CLIENTS = ("nfs-watch", "azcopy", "rclone")
TITLES = {work.name: work.title for work in WORKS}
KILLED = "one 512 MiB file, the client killed with SIGKILL when half of it had arrived, then started again"
# README's rows: the section of docs/benchmarks.md and the column that they are taken from
QUOTED = {
    "one 2 GiB file over TLS, with MD5, MB/s": (TITLES["large-md5"], "MB/s"),
    "the same without MD5 (blocks verified: nfs-watch only), MB/s": (TITLES["large"], "MB/s"),
    "four 1 GiB files over TLS, with MD5, MB/s": (TITLES["four-md5"], "MB/s"),
    "one 2 GiB file over plain http, MB/s": (TITLES["large-plain"], "MB/s"),
    "5,000 files of 20 kB at 20 ms latency, files/s": (TITLES["small-20"], "files/s"),
    "the same at 0 ms latency, files/s": (TITLES["small-0"], "files/s"),
    "512 MiB killed half-way and started again: sent in all, of the file": (KILLED, "sent in all, of the file's size"),
}


def cells(line: str) -> list[str]:
    """Return a table row's cells, as bare text."""
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def number(cell: str) -> float:
    """Return the figure of a cell."""
    return float(cell.replace(",", ""))


def figures(title: str, column: str) -> list[float]:
    """Return what each client reached by the page, in the order of CLIENTS; the first row of each counts."""
    section = (TOP / "docs/benchmarks.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    table = section.partition("\n| client |")[2].partition("\n\n")[0]
    head, _, *rows = [cells(line) for line in f"| client |{table}".splitlines()]
    at = head.index(column)
    return [next(number(row[at]) for row in rows if row[0].startswith(client)) for client in CLIENTS]


def quoted() -> dict[str, list[str]]:
    """Return the rows of README's table of measurements."""
    text = (TOP / "README.md").read_text().partition("\n## How it compares\n")[2]
    rows = re.search(r"\|---\|--:\|--:\|--:\|\n((?:\|.*\n)+)", text)
    assert rows
    lines = rows[1].splitlines()
    return {name: rest for name, *rest in map(cells, lines)}


def test_the_readme_quotes_all_that_it_is_checked_for() -> None:
    """A new row has to name where its figures come from."""
    assert list(quoted()) == list(QUOTED)


@pytest.mark.parametrize("row", QUOTED)
def test_the_readme_has_the_figures_of_the_benchmark(row: str) -> None:
    """After a new run of the benchmark README's table has to be written again."""
    assert [number(cell) for cell in quoted()[row]] == figures(*QUOTED[row])


def test_the_page_of_growth_starts_from_the_figures_of_the_benchmark() -> None:
    """R is one large file over TLS with MD5, F small files at 20 ms."""
    shard = measured()
    assert shard
    assert shard.megabytes == figures(TITLES["large-md5"], "MB/s")[0]
    assert shard.files == figures(TITLES["small-20"], "files/s")[0]

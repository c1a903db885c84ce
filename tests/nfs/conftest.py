"""The modules of this folder run inside guest kernels, one boot for each `GUEST` group; their reports come out as if
they ran here.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.need import need
from tests.nfs.guest import PROGRAMS, WHOLE, Guest
from tests.support.programs import AZURITE

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    work = os.environ.get("NFS_WORK")
    config.pluginmanager.register(Inside(config, Path(work)) if work else Outside(config))


def group(item: pytest.Item) -> str:
    """Return the guest in which this item runs."""
    return str(getattr(item, "module").GUEST)  # noqa: B009 items of other kinds have none


class Inside:
    """In the guest: write each report down for the host."""

    def __init__(self, config: pytest.Config, work: Path) -> None:
        self.config = config
        self.work = work
        self.reports = work / "host/reports"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            report.sections += [(path.parent.name, path.read_text()[-1500:]) for path in self.logs()]
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.reports.open("a") as file:
            file.write(json.dumps(data) + "\n")

    def logs(self) -> list[Path]:
        """Return the logs of the uploaders, the latest last."""
        return sorted(self.work.glob("guest/log-*/*.log"), key=lambda path: path.stat().st_mtime)


class Outside:
    """On the host: boot all guests at the same time, and take over their reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.guests: dict[str, Guest] = {}
        self.reports: dict[str, Iterator[dict[str, Any]]] = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """The guest has its own bounds."""
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(WHOLE + 100))

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if item.path.parent != HERE:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        for guest in self.guests.values():
            guest.close()

    def reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Yield the item's reports (set-up, call, tear-down), or a report that says why there are none."""
        try:
            need(*PROGRAMS, str(AZURITE))
            if not self.guests:
                self.boot(item.session.items)
        except (pytest.skip.Exception, pytest.fail.Exception) as reason:
            yield self.none(item, "skipped" if isinstance(reason, pytest.skip.Exception) else "failed", str(reason))
            return
        for data in self.reports[group(item)]:
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            yield report
            if report.nodeid == item.nodeid and report.when == "teardown":
                return
        last_words = self.guests[group(item)].last_words()
        yield self.none(item, "failed", f"the guest ended or was killed before this case did:\n{last_words}")

    def boot(self, items: list[pytest.Item]) -> None:
        """Start a guest for each group with the items that were selected."""
        groups: dict[str, list[str]] = {}
        for item in items:
            if item.path.parent == HERE:
                groups.setdefault(group(item), []).append(item.nodeid)
        for name, nodes in groups.items():
            self.guests[name] = Guest(nodes)
            self.reports[name] = self.guests[name].reports()

    @staticmethod
    def none(item: pytest.Item, outcome: Any, reason: str) -> pytest.TestReport:
        path, line, _ = item.location
        longrepr = (path, line or 0, f"Skipped: {reason}") if outcome == "skipped" else reason
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, longrepr, "call", start=0, stop=0)


@pytest.fixture(scope="session")
def azure() -> Iterator[str]:
    """Azurite's connection string."""
    from tests.nfs import bed  # noqa: PLC0415 only inside
    from tests.support.programs import azurite  # noqa: PLC0415

    with azurite(bed.GUEST) as connection:
        yield connection


@pytest.fixture(scope="session")
def producer() -> Iterator[None]:
    """The whole share, mounted by the producer's machine."""
    from tests.nfs import bed  # noqa: PLC0415

    options = f"{bed.V4},hard,nosharecache"
    bed.mount(bed.PRODUCER, "share", "producer", options)
    yield
    bed.unmount(bed.PRODUCER)

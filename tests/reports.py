"""A pytest plugin (`-p tests.reports`): writes each test's result as a line of JSON into the file named by REPORTS."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

WRITTEN = Path(os.environ["REPORTS"])


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker's reports come to its controller, and so does its crash
        config.pluginmanager.register(Reports())


class Reports:
    """Writes each report as it comes, so that no report is lost when pytest itself ends early."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write(report)

    @staticmethod
    def _write(report: pytest.TestReport | pytest.CollectReport) -> None:
        line: dict[str, Any] = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "when": report.when,
            "why": why(report),
        }
        line["seconds"] = getattr(report, "duration", 0.0)
        with WRITTEN.open("a") as file:
            file.write(json.dumps(line) + "\n")


def why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason of a skip, or the line that describes a failure."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (str(crash.message) if crash else report.longreprtext).strip().splitlines()
    return (lines[0] if crash else lines[-1]) if lines else ""

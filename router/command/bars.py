"""How waiting is shown: bars on a terminal, a line for each change in a log, JSON lines for programs."""

import sys
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from router.command.text import amount, clean, duration, progress

Fields = dict[str, Any]


class Bars:
    """A bar for each session, on stderr."""

    pace = 1

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[percent]:>4} {task.fields[said]}", markup=False),
            console=Console(stderr=True, highlight=False),
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = ""
        self._progress.start()

    def now(self, one: Fields) -> None:
        """Move the session's bar."""
        files, size, name = one["files"], one["bytes"], one["session"]
        total = sum(files[key] for key in ("waiting", "uploading", "completed", "failed"))
        # Without content to send (none yet, or empty files) the bar shows files.
        done, of = (size["uploaded"], size["total"]) if size["total"] else (files["completed"], total)
        said = f"{files['completed']}/{total} files  {amount(size['uploaded'])}"
        if one["rate_bytes_per_s"]:
            said += f"  {amount(one['rate_bytes_per_s'])}/s  {duration(one['eta_s'])} left"
        said += f"  {files['failed']} failed" if files["failed"] else ""
        said += "" if one["state"] == "active" else f"  {one['state']}"
        percent = f"{100 * done // of}%" if of else "-"
        fields = {"total": max(of, 1), "completed": done, "said": said, "percent": percent}
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, **fields)
        self._progress.update(self._tasks[name], **fields)
        self._told = ""

    def away(self, reason: str) -> None:
        """Say once above the bars that there is no answer."""
        if reason != self._told:
            self._told = reason
            self._progress.console.print(Text(f"no answer, asking again: {clean(reason)}"))

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


class Lines:
    """A line for each change, on stderr."""

    pace = 5

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def now(self, one: Fields) -> None:
        """Write the line, unless it is the last one."""
        self._say(one["session"], progress(one))
        self._told.pop("", None)

    def away(self, reason: str) -> None:
        """Say that there is no answer."""
        self._say("", f"no answer, asking again: {clean(reason)}")

    def close(self) -> None:
        """There is nothing to do."""

    def _say(self, about: str, line: str) -> None:
        if self._told.get(about) != line:
            self._told[about] = line
            print(line, file=sys.stderr, flush=True)


class JsonLines(Lines):
    """The status object of a session on each change, one a line, on stdout; the last one has the result."""

    def now(self, one: Fields) -> None:
        """Write the object, unless it is the last one."""
        line = orjson.dumps(one).decode()
        if self._told.get(one["session"]) != line:
            self._told[one["session"]] = line
            print(line, flush=True)
        self._told.pop("", None)

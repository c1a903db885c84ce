"""Progress for people: one line that changes on a terminal, a line now and then elsewhere."""

import sys
import time

BAR = 24
INTERVAL = {True: 0.1, False: 2.0}  # seconds between two lines: on a terminal, elsewhere


class Progress:
    """Shows how far something is; use as often as there is news."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._next = 0.0
        self._shown = ""

    def show(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total` and this text, unless the last line is too fresh."""
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + INTERVAL[self._terminal]
        part = min(1.0, done / total) if total else 1.0
        line = f"[{'#' * round(part * BAR):<{BAR}}] {part:4.0%}  {text}"
        if self._terminal:
            print(f"\r  {line:<{len(self._shown)}}", end="", flush=True)
        elif line != self._shown:
            print(f"  {line}", flush=True)
        self._shown = line

    def end(self) -> None:
        """Leave the line as it is."""
        if self._terminal and self._shown:
            print(flush=True)
        self._shown = ""


def amount(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"

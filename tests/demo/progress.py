"""Progress for people: on a terminal one line that changes, elsewhere a line every two seconds."""

import sys
import time

BAR = 24
INTERVAL = {True: 0.1, False: 2.0}  # seconds between two lines: on a terminal, elsewhere


class Progress:
    """Shows progress; call it as often as there is news."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._next = 0.0
        self._shown = ""

    def show(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total` and this text, unless the last line was printed too recently."""
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
        """End the line and leave it on the screen."""
        if self._terminal and self._shown:
            print(flush=True)
        self._shown = ""


def amount(size: float) -> str:
    """Return a number of bytes in a form for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"

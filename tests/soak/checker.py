"""Watches the share all the time: a file that has left the share must be in the store at that moment."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.soak.ledger import NEVER, File, Ledger
from tests.soak.measured import Held, held, most

SUFFIXES = ("", ".processing", ".completed")
UNPROVEN_AFTER = 8.0  # seconds; far more than retention and sweeps take


class Checker:
    """A thread. After a container was deleted it also does a person's part: it has the kept files sent again."""

    def __init__(self, root: Path, ledger: Ledger, pids: Callable[[], list[int]]) -> None:
        self.root = root
        self.ledger = ledger
        self.pids = pids
        self.counted: Counter[str] = Counter()
        self.peak = Held(0, 0, 0)
        self._kept: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._end.wait(0.3):
                with self.ledger.lock:
                    files = {id(file): file for file in self.ledger.files.values() if file.landed > file.gone}
                for file in files.values():
                    self._look(file)
                self.peak = most([self.peak, *(held(pid) for pid in self.pids())])
                self.counted["looks at the whole share"] += 1
        except BaseException as error:
            self.ledger.wrong.append(f"the checker itself failed: {error!r}")
            raise

    def _look(self, file: File) -> None:
        version = file.landed
        # A file goes from plain to processing to completed, and back: of three looks one meets it.
        # With two names the newer is asked first: the folder gets it only once.
        names = [name for _ in range(3) for name in file.names[::-1] if any(self._there(name, end) for end in SUFFIXES)]
        if names:
            if file.lost_with_container > NEVER and file.committed < file.lost_with_container:
                self._send_again(names[0])
            return
        if file.landed == version:
            self.ledger.vanished(file, version)

    def _there(self, path: str, suffix: str) -> bool:
        return os.path.lexists(f"{self.root}/{path}{suffix}")

    def _send_again(self, path: str) -> None:
        """Do what docs/operations.md says of file.unproven: rename the file whose blob went with its container."""
        if not self._there(path, ".completed"):
            self._kept.pop(path, None)
            return
        if time.monotonic() - self._kept.setdefault(path, time.monotonic()) < UNPROVEN_AFTER:
            return
        del self._kept[path]
        completed, plain = f"{self.root}/{path}.completed", f"{self.root}/{path}"
        with contextlib.suppress(FileNotFoundError):
            if self._there(path, "") or self._there(path, ".processing"):
                os.unlink(completed)  # a newer file waits for its name
            else:
                os.rename(completed, plain)
            self.counted["kept files put back by hand"] += 1

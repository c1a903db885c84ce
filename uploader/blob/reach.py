"""Whether the store can be reached: one thread asks, and workers wait meanwhile instead of failing file by file."""

import logging
import threading
import time
from collections.abc import Callable

from uploader.errors import StoreAway
from uploader.telemetry import names
from uploader.telemetry.text import fact
from uploader.thread import spawn

log = logging.getLogger(__name__)
PAUSE = 5.0  # seconds between two questions


class Reach:
    """`open` while the store answers: workers take files only then. An answer that is missing closes it.

    `open` and `_doubt` are events, each safe by itself; `waits_for` and `answered` are written by the asking thread
    alone. The store is asked after each doubt: a doubt that comes at any moment is settled by a later answer.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        """`ask` raises StoreAway while the store does not answer, and Fatal when the answer is no."""
        self.waits_for: str | None = "the blob store has not been asked yet"
        self.answered = False
        self._ask = ask
        self.open = threading.Event()
        self._doubt = threading.Event()

    def begin(self) -> None:
        """Start the thread that asks."""
        spawn("store-reach", self._run)

    def doubt(self) -> None:
        """Note that the store did not answer: nothing new is begun until it has been asked."""
        self.open.clear()
        self._doubt.set()

    def _run(self) -> None:
        while True:
            self.settle()
            self._doubt.wait()

    def settle(self, sleep: Callable[[float], object] = time.sleep) -> None:
        """Ask until the store answers. Logs that it is away once for each reason, and that it is back."""
        self.open.clear()
        told = ""
        began = time.monotonic()
        while text := self._asked():
            if fact(text) != told:
                told = fact(text)
                log.warning(names.STORE_AWAY, extra={"error": text})
            self.waits_for = text
            sleep(PAUSE)
        if told:
            log.info(names.STORE_BACK, extra={"seconds": round(time.monotonic() - began, 1)})
        self.waits_for = None
        self.answered = True
        if not self._doubt.is_set():
            self.open.set()

    def _asked(self) -> str:
        """Ask once; return why there was no answer, "" after one."""
        self._doubt.clear()
        try:
            self._ask()
        except StoreAway as error:
            return str(error)
        return ""

"""What the log has said of what: the same fact about the same file is not said again until it changes.

Memory: MOST times about 300 bytes for each session. Of more files than that, those told first may be told again.
"""

import threading
from collections import OrderedDict

from uploader.telemetry.text import fact

MOST = 5_000


class Told:
    """The last fact that was told of each event of each file, until that is over. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def news(self, event: str, of: str, text: str = "") -> bool:
        """Tell whether this is another fact than the last one; it counts as told from now on."""
        now = fact(text)
        with self._lock:
            before = self._facts.pop((event, of), None)
            self._facts[event, of] = now
            if len(self._facts) > MOST:
                self._facts.popitem(last=False)
        return before != now

    def over(self, event: str, of: str) -> None:
        """Forget a fact that has passed: if it comes again, it is news."""
        if self._facts:  # nearly always there is none
            with self._lock:
                self._facts.pop((event, of), None)

"""The program that uses nfs-watch: keeps the sessions running through the router, and stops a session now and then."""

import contextlib
import random
import threading
import time
from collections import Counter

import httpx

from tests.kubernetes.pods import Pods


class Caller:
    """A thread that asks again, whatever the answer was."""

    def __init__(self, pods: Pods, sessions: list[str], seed: str, *, stops: float) -> None:
        """`stops` is their number a second, on average."""
        self.pods = pods
        self.sessions = sessions
        self.random = random.Random(seed)
        self.stops = stops
        self.counted: Counter[str] = Counter()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._end.wait(1):
            self.ensure()
            if self.random.random() < self.stops:
                drain = self.random.random() < 0.5
                self._post(
                    "stop",
                    "stops with a drain" if drain else "stops at once",
                    self.random.choice(self.sessions),
                    drain=drain,
                )

    def ensure(self) -> bool:
        """Start the sessions that do not run; tell whether all run.

        Those that are stopped first: their shard alone can start them, and has to have room.
        """
        states = {one["session"]: one["state"] for one in self.status()}
        for name in sorted(self.sessions, key=lambda name: name not in states):
            if states.get(name) != "active":
                self._post("start", "starts", name)
        return all(states.get(name) == "active" for name in self.sessions)

    def status(self) -> list[dict[str, str]]:
        """Return the router's status of the sessions."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            found: list[dict[str, str]] = httpx.get(f"{self.pods.router.url}/v1/watch/status", timeout=15).json()[
                "sessions"
            ]
            return found
        return []

    def drain(self, name: str) -> None:
        self._post("stop", "stops with a drain", name, drain=True)

    def _post(self, call: str, word: str, name: str, **fields: object) -> None:
        try:
            answer = httpx.post(f"{self.pods.router.url}/v1/watch/{call}", json={"session": name, **fields}, timeout=45)
        except httpx.HTTPError:
            self.counted[f"{word}: no answer"] += 1
            return
        self.counted[f"{word}: {answer.status_code}"] += 1
        if answer.status_code == 503:
            time.sleep(0.5)

"""The faults, chosen by a seed: one thread that breaks things, and the times at which each is mended again."""

import contextlib
import heapq
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.endpoint.faults import Do, Fault, Refuse, Reset, StallReply, StallSend
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Refused, Store
from tests.kubernetes.api import spec
from tests.kubernetes.pods import Pods
from tests.support.programs import CONTINUE, STOP, Server

COMMITS = (Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST)
WRITES = (*COMMITS, Operation.PUT_BLOCK)


class Nemesis:
    """Breaks things until `rest` mends everything. Programs that end are started again, as Kubernetes would."""

    def __init__(self, pods: Pods, endpoint: Endpoint, seed: str, *, most: int, drops: bool, pause: float) -> None:
        self.pods = pods
        self.endpoint = endpoint
        self.random = random.Random(seed)
        self.most = most
        self.drops = drops
        self.pause = pause
        self.done: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.stopped: set[Server] = set()
        self.twins: list[Server] = []
        self.full: list[int] = []
        self.wanted = most
        self.clock_off_until = 0.0
        self._down: set[Server] = set()
        self._calendar: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self.failed: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def rest(self) -> None:
        """Stop breaking and mend everything."""
        self._end.set()
        self._thread.join(60)
        while self._calendar:
            heapq.heappop(self._calendar)[2]()
        self.endpoint.faults.clear()
        self.endpoint.faults.skew = 0
        self._scale(self.most)

    def look_after(self) -> None:
        """Start programs again that have ended by themselves; for the time after `rest`."""
        for server in [*self.pods.shards.values(), self.pods.router]:
            if server.process and server.process.poll() is not None and server not in self._down:
                self._ended(server)
                server.start()

    def _run(self) -> None:
        acts: dict[Callable[[], None], int] = {
            self._kill: 10, self._kill_router: 3, self._stop: 6, self._twin: 3, self._refuse: 10, self._reset: 8,
            self._lose_commits: 8, self._stall: 5, self._scale_some: 4, self._fill: 4, self._skew: 2, self._expire: 3,
            self._throttle: 3, **({self._drop: 1} if self.drops else {}),
        }  # fmt: skip
        next_act = time.monotonic()
        try:
            while not self._end.wait(0.05):
                now = time.monotonic()
                while self._calendar and self._calendar[0][0] <= now:
                    heapq.heappop(self._calendar)[2]()
                self.look_after()
                if now >= next_act:
                    act = self.random.choices(list(acts), list(acts.values()))[0]
                    act()
                    next_act = time.monotonic() + self.random.uniform(0.2, 2) * self.pause
        except BaseException as error:
            self.failed = error
            raise

    def _ended(self, server: Server) -> None:
        assert server.process is not None
        self.exits[f"{server.output.stem} ended with {server.process.returncode}"] += 1

    def _later(self, least: float, most: float, act: Callable[[], None]) -> None:
        when = time.monotonic() + self.random.uniform(least, most)
        heapq.heappush(self._calendar, (when, next(self._numbers), act))

    def _shard(self) -> Server:
        return self.pods.shards[self.random.choice(sorted(self.pods.shards))]

    def _kill(self) -> None:
        self._killed(self._shard(), "shards killed")

    def _kill_router(self) -> None:
        self._killed(self.pods.router, "routers killed")

    def _killed(self, server: Server, word: str) -> None:
        if server in self._down:
            return
        self.done[word] += 1
        self._down.add(server)
        self.stopped.discard(server)
        server.kill()

        def up() -> None:
            self._down.discard(server)
            if server is self.pods.router or server in self.pods.shards.values():
                server.start()

        self._later(0, 2, up)

    def _stop(self) -> None:
        server = self._shard()
        if server in self._down or server in self.stopped:
            return
        self.done["shards stopped for seconds"] += 1
        server.signal(STOP)
        self.stopped.add(server)

        def go_on() -> None:
            if server in self.stopped:
                self.stopped.discard(server)
                server.signal(CONTINUE)

        self._later(0.5, 6, go_on)

    def _twin(self) -> None:
        if self.twins:
            return
        self.done["second processes of an ordinal"] += 1
        ordinal = self.random.choice(sorted(self.pods.shards))
        twin = self.pods.pod(ordinal, f"127.0.3.{ordinal}")
        twin.start()
        self.twins.append(twin)

        def end() -> None:
            if twin.process and twin.process.poll() is not None:
                self._ended(twin)
            twin.kill()
            self.twins.remove(twin)

        self._later(4, 12, end)

    def _plan(self, word: str, fault: Fault, *operations: Operation, most: int = 20) -> None:
        times = self.random.randrange(1, most)
        planned = self.endpoint.faults.add(fault, *operations, times=times, skip=self.random.randrange(5))
        self._later(3, 8, lambda: self._count(word, planned))

    def _count(self, word: str, planned: object) -> None:
        hits = int(getattr(planned, "hits", 0))
        self.done[word] += hits
        with self.endpoint.faults._lock, contextlib.suppress(ValueError):
            self.endpoint.faults._plan.remove(planned)  # type: ignore[arg-type]

    def _refuse(self) -> None:
        status = self.random.choice([500, 503, 429, 408])
        codes = {500: "InternalError", 503: "ServerBusy", 429: "TooManyRequests", 408: "RequestTimeout"}
        wait = self.random.choice([None, 0, 1])
        self._plan(f"answers of {status}", Refuse(status, codes[status], wait), most=40)

    def _reset(self) -> None:
        after = self.random.random() < 0.5
        word = "connections reset after the effect" if after else "connections reset before the effect"
        self._plan(word, Reset(after_effect=after), *self.random.choice([(), WRITES]))

    def _lose_commits(self) -> None:
        self._plan("replies to commits lost", Reset(after_effect=True), *COMMITS)

    def _stall(self) -> None:
        if self.random.random() < 0.5:
            fault: Fault = StallSend(self.random.uniform(0.5, 4), self.random.choice([0, 1000, 100_000]))
            self._plan("sends stalled", fault, *WRITES, most=8)
        else:
            self._plan("replies stalled", StallReply(self.random.uniform(0.5, 4)), *WRITES, most=8)

    def _expire(self) -> None:
        self._plan("expiries of all uncommitted blocks", Do(Store.expire), *WRITES, most=3)

    def _drop(self) -> None:
        with contextlib.suppress(Refused):
            self.endpoint.store.drop("uploads", being_deleted=self.random.choice([0, 1.5]))
            self.done["containers deleted"] += 1

    def _throttle(self) -> None:
        self.done["slow lines"] += 1
        self.endpoint.faults.throttle.rate = self.random.choice([1, 4, 16]) * 2**20
        self._later(1, 5, lambda: setattr(self.endpoint.faults.throttle, "rate", 0.0))

    def _skew(self) -> None:
        """Set the clock off: mostly within the 15 minutes that the service allows, sometimes beyond."""
        self.done["clocks off"] += 1
        self.endpoint.faults.skew = self.random.choice([-800, -300, 300, 800, 1000])
        self.clock_off_until = time.monotonic() + 60
        self._later(1, 4, lambda: setattr(self.endpoint.faults, "skew", 0.0))

    def _scale_some(self) -> None:
        self._scale(self.random.randrange(1, self.most + 1))

    def _scale(self, count: int) -> None:
        """Scale as the StatefulSet's controller does, without waiting."""
        if count != self.wanted:
            self.done["changes of the replica count"] += 1
        self.wanted = count
        self.pods.api.body = spec(count)
        for ordinal in [ordinal for ordinal in self.pods.shards if ordinal >= count]:
            gone = self.pods.shards.pop(ordinal)
            self.stopped.discard(gone)
            gone.kill()
        for ordinal in range(count):
            if ordinal not in self.pods.shards:
                self.pods.shards[ordinal] = self.pods.pod(ordinal)
                self.pods.shards[ordinal].start()

    def _fill(self) -> None:
        """Fill the staging disk with a file that has no name any more, so that no sweep frees it."""
        if self.full:
            return
        folder = self.pods.folder / "staging"
        if not os.path.ismount(folder):
            return
        fd = os.open(folder / ".filler", os.O_RDWR | os.O_CREAT)
        os.unlink(folder / ".filler")
        disk = os.fstatvfs(fd)
        with contextlib.suppress(OSError):
            os.posix_fallocate(fd, 0, max(4096, (disk.f_bfree - self.random.randrange(8)) * disk.f_frsize))
        self.done["staging disks filled"] += 1
        self.full.append(fd)
        self._later(1, 6, lambda: os.close(self.full.pop()))

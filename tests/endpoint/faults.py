"""The faults that tests plan, and what each does to a request."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.endpoint.request import Operation, Request
from tests.endpoint.store import Store


@dataclass(frozen=True)
class Refuse:
    """Answer with this status and error code, without any effect."""

    status: int
    code: str = "ServerBusy"
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    names: str = ""  # the header that the refusal is about


@dataclass(frozen=True)
class Reset:
    """Break the connection: before the body is read (the effect is lost) or after the effect (the reply is lost)."""

    after_effect: bool = False


@dataclass(frozen=True)
class StallSend:
    """Stop reading the body after so many bytes, for so many seconds, then break the connection."""

    seconds: float
    after_bytes: int = 0


@dataclass(frozen=True)
class StallReply:
    """Have the effect, then answer so many seconds later."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Read the body, then wait until `gate` is set before the effect: the request stays in flight until then."""

    gate: threading.Event


@dataclass(frozen=True)
class Alter:
    """Change the reply: headers (None removes a header), and the body where one is given."""

    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Do:
    """Change the store just before the request has its effect, e.g. `Do(Store.expire)`."""

    change: Callable[[Store], object]


Fault = Refuse | Reset | StallSend | StallReply | Hold | Alter | Do


@dataclass
class Planned:
    """A fault and the requests that it hits."""

    fault: Fault
    matches: Callable[[Request], bool]
    skip: int
    times: int
    hits: int = 0


class Faults:
    """The plan of faults, and the delays of every request."""

    def __init__(self) -> None:
        self.latency = 0.0
        """Seconds that each request takes besides its body."""
        self.skew = 0.0
        """Seconds by which the endpoint's clock is ahead; past 15 minutes it refuses requests as the service does."""
        self.throttle = Throttle()
        self._plan: list[Planned] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *operations: Operation,
        times: int = 1,
        skip: int = 0,
        when: Callable[[Request], bool] = lambda _: True,
    ) -> Planned:
        """Plan a fault for these operations (none: any): let `skip` requests pass, then hit `times` of them."""
        planned = Planned(fault, lambda it: (not operations or it.operation in operations) and when(it), skip, times)
        with self._lock:
            self._plan.append(planned)
        return planned

    def clear(self) -> None:
        """Remove all planned faults."""
        with self._lock:
            self._plan.clear()

    def take(self, request: Request) -> Fault | None:
        """Return the first fault that hits this request; the plan counts it."""
        with self._lock:
            for planned in self._plan:
                if planned.hits >= planned.times or not planned.matches(request):
                    continue
                if planned.skip:
                    planned.skip -= 1
                    continue
                planned.hits += 1
                return planned.fault
        return None


class Throttle:
    """Bytes per second over all connections together; 0 is no limit."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self, count: int) -> float:
        """Book so many bytes and return the seconds to wait for them."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now) + count / self.rate
            return self._next - now

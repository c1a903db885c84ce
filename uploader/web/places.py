"""How many clients are served at once: descriptors that the program's own work needs are kept back from them.

Memory, measured: 25 kB a connection with an event stream, 5 kB one without a request, and one event more for a client
that does not read. So 2,500 connections take 65 MB at most beside the events that wait.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from uploader.errors import TooManyClients

MOST_BACKLOG = 1024  # connections that the kernel has accepted and nobody has looked at


@dataclass(frozen=True)
class Limits:
    """`connections` of clients at most; `lasting`: requests that wait for something to happen; `backlog`: see above."""

    connections: int
    lasting: int
    backlog: int


def limits(clients: int, kept: int) -> Limits:
    """Raise the soft limit of descriptors to the hard one; `kept`: descriptors that are for the program's own work.

    `clients`: connections at most, however many descriptors there are.
    """
    return divided(clients, raised() - kept)


def raised() -> int:
    """Raise the soft limit of descriptors to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return soft
    return hard


def divided(clients: int, room: int) -> Limits:
    """Return the limits where `room` descriptors are for clients.

    asyncio accepts a whole backlog at a time, and a connection counts two turns of its loop later: so up to three of
    them are open beyond the bound for a moment.
    """
    backlog = max(8, min(MOST_BACKLOG, room // 8))
    connections = max(16, min(clients, room - 3 * backlog))
    return Limits(connections, connections - max(4, connections // 8), backlog)


class Places:
    """The places of requests that last: event streams, and those that wait for a session's end. Of the event loop."""

    def __init__(self, most: int = 2000) -> None:
        self.most = most
        self.taken = 0

    def check(self) -> None:
        """Raise TooManyClients when no place is free."""
        if self.taken >= self.most:
            raise TooManyClients(f"{self.most} clients watch or wait already: more than that are not served at once")

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Take a place inside the block. Raises TooManyClients."""
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

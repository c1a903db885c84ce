"""What a process uses: memory, threads, descriptors, read from /proc."""

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """The use of one process; `resident` in MiB."""

    resident: float
    threads: int
    descriptors: int


def held(pid: int) -> Held | None:
    """Return the present use of this process, None when it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return Held(int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), descriptors)
    except (OSError, KeyError):
        return None


def most(found: Iterable[Held | None]) -> Held:
    """Return the maximum of each."""
    known = [one for one in found if one]
    return Held(
        max((one.resident for one in known), default=0),
        max((one.threads for one in known), default=0),
        max((one.descriptors for one in known), default=0),
    )

"""Work in a process of its own that dies just before its n-th step: a rename, link, unlink or request.

The processes are forked by a server without threads; forking the test's own process, which has some, can deadlock.
"""

import os
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from tests.invariants.bed import Bed
from tests.support.blobs import azure_blobs
from uploader.blob.transport import ThreadTransport
from uploader.session import Session, State
from uploader.sessions.records import Records

FIRST = Session("run", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z")
SECOND = Session("run", State.DRAINING, 0, "2026-01-01T00:00:00.000Z")
DONE, FAILED, KILLED = 0, 1, 9
_context = get_context("forkserver")
_context.set_forkserver_preload([__name__])


class Steps:
    """Counts what a process does to the outside; dies before step number `last`."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.number = 0
        self._stack = ExitStack()

    def __enter__(self) -> None:
        for owner, name in ((os, "rename"), (os, "link"), (os, "unlink"), (ThreadTransport, "send")):
            self._stack.enter_context(mock.patch.object(owner, name, self._counted(getattr(owner, name))))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if self.number == self.last:
                os._exit(KILLED)
            self.number += 1
            return call(*args, **options)

        return counted


Work = Callable[[Path, str], None]


def at_every_step(
    work: Work, root: Path, connection: str, prepare: Callable[[], object], check: Callable[[], None]
) -> int:
    """Kill the work before each of its steps in turn; return how many there are."""
    for last in count():
        prepare()
        process = _context.Process(target=_child, args=(work, root, connection, last))
        process.start()
        process.join(120)
        process.kill()  # a hang is no reason to leave it behind
        process.join()
        how = process.exitcode
        assert how in {DONE, KILLED}
        check()
        if how == DONE:
            return last
    raise AssertionError


def _child(work: Work, root: Path, connection: str, last: int) -> None:
    code = FAILED
    try:
        with Steps(last):
            work(root, connection)
        code = DONE
    except BaseException:  # noqa: BLE001 only the exit code counts
        traceback.print_exc()
    finally:
        os._exit(code)


def settle(root: Path, connection: str) -> None:
    """Do all that a shard does, until nothing is left to do."""
    on_bed(Bed.settle, root, connection)


def give_back(root: Path, connection: str) -> None:
    """Give claims back, as a stop does."""
    on_bed(lambda bed: bed.give_back(), root, connection)


def on_bed(work: Callable[[Bed], object], root: Path, connection: str) -> None:
    """Do the work with parts built for this process only."""
    with azure_blobs(connection, root) as store:
        bed = Bed(root, store)
        work(bed)
        bed.close()


def change_records(root: Path, _: str) -> None:
    """Write, change and remove a record."""
    records = Records(root, 0)
    records.create(FIRST)
    records.replace(SECOND)
    records.remove("run")

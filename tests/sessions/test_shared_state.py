"""A session's inventory is shared between threads under one lock: no reader sees a half-made change."""

import threading
import time
from collections.abc import Iterator
from typing import Any

from uploader.backlog.inventory import Inventory
from uploader.backlog.settling import Settling
from uploader.errors import StoreAway
from uploader.session import Session, State
from uploader.sessions import status
from uploader.share.fingerprint import Fingerprint
from uploader.web.openapi.models import ShardStatus
from uploader.web.openapi.results import FileState

SHARD = ShardStatus(shard=0, reachable=True, sessions=[])
SESSION = Session("run", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z")
FAILING = 3000
LOOK = Fingerprint(1, 1, 1, 1)


class HandsOver(dict[str, Any]):
    """Lets another thread run between any two items, as the interpreter may on Python 3.11."""

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        for pair in super().items():
            time.sleep(0)
            yield pair


def test_status_is_read_while_thousands_of_files_fail_at_once() -> None:
    """On Python 3.11 a dict that changes during iteration would end the process."""
    files = Inventory("run", 100)
    files._known.failures._known = HandsOver()
    files.fail("first", StoreAway("not now"))

    def fail(of: int) -> None:
        for number in range(FAILING):
            files.fail(f"{of}/{number}", StoreAway("not now"))

    threads = [threading.Thread(target=fail, args=(of,)) for of in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        status.answer(SHARD, [(SESSION, files)])
        files.pending()
    (one,) = status.answer(SHARD, [(SESSION, files)]).sessions
    assert one.files.failed == 3 * FAILING + 1


class Guarded(Inventory):
    """Fails at every read or write of a changing field without the lock."""

    def __getattribute__(self, name: str) -> Any:
        if name in CHANGING:
            assert object.__getattribute__(self, "_lock").locked(), f"{name} without the lock"
        return object.__getattribute__(self, name)


FIXED = {"_lock", "_idle", "_cancelled"}  # and a flag, which is read in one step
CHANGING = {name for name in vars(Inventory("run", 1)) if name.startswith("_")} - FIXED


def use(files: Inventory) -> Iterator[str]:
    """Call every method once and yield its name."""
    calls: dict[str, tuple[Any, ...]] = {
        "given_back": ("b", LOOK, 1.0),
        "settle": ("s", Settling(LOOK, 0, 0)),
        "settling": ("s",),
        "fail": ("f", StoreAway("not now")),
        "failure": ("f",),
        "retry": (),
        "pace": (),
        "note_error": ("text",),
        "keep": ("k", "reason"),
        "kept": (),
        "release": ("k",),
        "begin_scan": (),
        "skip": ("f", 0.0),
        "count_beyond": (3,),
        "end_scan": (0,),
        "count_receipts": (1, 7, 0),
        "count_replaced": (1,),
        "count_earlier": ("g", 7),
        "has_receipt": ("g",),
        "uncount": ("g", None),
        "forget_earlier": ("g",),
        "clear_error": ("folder",),
        "paths": (FileState.FAILED,),
        "describe": ("f",),
        "knows": ("x",),
        "remembers": ("x",),
        "oldest": (),
        "uploading": (),
        "pending": (),
        "drained": (0,),
        "snapshot": (50,),
        "cancel": (),
        "wait_idle": (0.0,),
    }
    for name, arguments in calls.items():
        getattr(files, name)(*arguments)
        yield name
    item, other = files.admit("x", LOOK), files.admit("y", LOOK)
    assert item
    assert other
    for name, arguments in {
        "begin": (item,),
        "resize": (item, 2),
        "count_sent": (item, 2),
        "count_done": (item,),
    }.items():
        getattr(files, name)(*arguments)
        yield name
    files.done(item)
    files.drop([other])
    with files.reserve("z"):
        yield from ("admit", "done", "drop", "reserve")


def test_no_method_looks_at_what_changes_without_the_lock() -> None:
    """A new method of the inventory is held to the rule too, for every public name must be called here."""
    public = {name for name in vars(Inventory) if not name.startswith("_")} - {"cancelled"}
    assert set(use(Guarded("run", 10))) == public

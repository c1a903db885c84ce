"""I7: one bad file never stops the others; it is tried again for ever, and shown."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.core.rest import HttpRequest

from tests.endpoint.faults import Do, Refuse
from tests.endpoint.request import Operation
from tests.invariants.bed import Bed
from tests.invariants.site import Site, arrive, files
from tests.support.programs import free_port, wait_for
from uploader.blob.rate_limit import RateLimit
from uploader.blob.store import rfc3339
from uploader.blob.transport import ThreadTransport
from uploader.errors import NameRefused, StoreAway, StoreRefused
from uploader.session import Session, State
from uploader.sessions import status
from uploader.share import fingerprint
from uploader.telemetry import names
from uploader.web.openapi.models import Current, ShardStatus
from uploader.web.openapi.results import FileState

YEAR_20000 = 568_971_820_800


def hostile(folder: Path) -> int:
    """Make names and files that cannot be sent; return how many."""
    os.makedirs(folder / "sub.", exist_ok=True)
    names: list[bytes] = [b"\xff\xfe", b"a\x01b", b"back\\slash", b"dot.", b"sub./x", b"x" * 250]
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb"):
            pass
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "busy.processing").symlink_to("/etc/passwd")
    with open(os.fsencode(folder) + b"/\xff.completed", "wb"):
        pass
    (folder / "done.completed").symlink_to("/etc/passwd")
    return len(names) + 3 + 1 + 1


def test_good_files_arrive_among_all_that_is_bad(tmp_path: Path, stack: ExitStack) -> None:
    """Neither the upload nor the drain waits for files that can never be sent, and the process lives on."""
    site = Site(tmp_path, stack).up()
    folder = site.start("run")
    bad = hostile(folder)
    good = {f"{number}/{number}.bin": os.urandom(number * 999) for number in range(30)}
    good |= {"a?b#c%d e&f;=+": b"x", "é": b"y", "e\u0301": b"z", "a:b": b"w", "'\"<>|*": b"v", "😀" * 50: b"u"}
    for path, content in good.items():
        arrive(folder, path, content)
    (folder / ".old").write_bytes(b"old")
    os.utime(folder / ".old", (-(10**9), -(10**9)))
    (folder / ".old").rename(folder / "old")
    good["old"] = b"old"
    wait_for(lambda: site.blobs("run") == good, "the good files", 120)
    shown = wait_for(lambda: (one := site.status("run"))["files"]["failed"] >= bad and one, "the bad ones to be shown")
    assert any("symbolic link" in str(one["error"]) for one in shown["current"])
    assert site.shards[0].process.poll() is None  # type: ignore[union-attr]
    assert site.post("stop", session="run").status_code == 202
    wait_for(lambda: site.status("run")["state"] == "stopped", "the drain")
    assert "/etc/passwd" not in str(site.endpoint.store.blobs("uploads"))
    assert not [name for name in files(folder) if name in good]


def test_what_the_store_refuses_is_tried_again_and_the_drain_waits_for_it(tmp_path: Path, stack: ExitStack) -> None:
    """The other file goes on, status gives the store's reason, and the drain ends when the file is sent."""
    site = Site(tmp_path, stack)
    shown = threading.Event()
    bad: dict[str, Any] = {"when": lambda request: request.blob == "run/bad"}
    site.endpoint.faults.add(Refuse(400, "InvalidInput"), Operation.PUT_BLOB, **bad)
    site.endpoint.faults.add(Do(lambda _: shown.wait(120)), Operation.PUT_BLOB, **bad)  # no end before we have looked
    site.up()
    folder = site.start("run")
    for name in ("bad", "good"):
        arrive(folder, name, name.encode())
    seen = wait_for(
        lambda: (one := site.status("run"))["files"]["completed"] and one["files"]["failed"] and one, "both"
    )
    (failed,) = seen["current"]
    assert failed["path"] == "bad"
    assert site.blobs("run") == {"good": b"good"}
    assert "400 InvalidInput" in failed["error"]
    assert failed["attempts"] == 1 + seen["files"]["uploading"], "the second try may have begun"
    shown.set()
    site.drained("run")
    assert site.blobs("run") == {"bad": b"bad", "good": b"good"}
    assert files(folder) == []


def test_a_fault_of_ours_in_one_file_is_shown_and_stops_no_other(bed: Bed) -> None:
    """After an unexpected exception the worker lives, the file is tried again, and its reason is shown."""

    def fault(name: str) -> None:
        if name == "run/bad":
            raise RuntimeError("nobody thought of this")

    bed.store.before["put"] = fault
    for name in ("bad", "good"):
        bed.write(name, name.encode())
    bed.scan()
    bed.work()
    assert bed.store.writes == ["run/good"]
    session = Session("run", State.ACTIVE, 0, "2026-01-01T00:00:00.000Z")
    (shown,) = status.answer(ShardStatus(shard=0, reachable=True, sessions=[]), [(session, bed.files)]).sessions
    assert shown.files.failed == 1
    (one,) = shown.current
    assert one == Current("bad", 3, 0, 1, "RuntimeError: nobody thought of this", FileState.FAILED, one.next_try)
    assert one.next_try
    assert bed.files.pending() == 1, "a drain waits for it"
    bed.store.before.clear()
    bed.settle()
    assert bed.content("bad") == b"bad"
    assert bed.files.snapshot().failed == 0


def test_a_thread_whose_first_request_found_no_store_goes_on() -> None:
    """The store may be away when the pod starts: each thread's connection must still work later."""
    transport = ThreadTransport(2, RateLimit(0))
    for _ in range(3):
        with pytest.raises(ServiceRequestError, match="refused"):
            transport.send(HttpRequest("GET", f"http://127.0.0.1:{free_port()}/"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (YEAR_20000, "9999-12-31T23:59:59.000000000Z"),
        (-(10**12), "1000-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.000000000Z"),
    ],
)
def test_a_file_may_bear_any_time(bed: Bed, seconds: int, said: str) -> None:
    """XFS, ZFS and tmpfs hold times far beyond the year 9999: such a file is sent, with a time the service accepts."""
    assert rfc3339(seconds * 10**9) == said
    os.utime(bed.write("x", b"content"), (seconds, seconds))
    bed.upload("x")
    assert bed.content("x") == b"content"


def test_backoff_doubles_and_is_bounded(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wait is about 5 s, and no wait is longer than about 5 minutes, however often a file fails."""
    monkeypatch.setattr("uploader.backlog.failures.time", SimpleNamespace(monotonic=lambda: 1000.0, time=lambda: 0.0))
    waits = []
    for _ in range(12):
        before = bed.files.failure("x")
        bed.files.fail("x", StoreRefused("no"))
        failure = bed.files.failure("x")
        assert failure
        waits.append(failure.due - 1000)
        assert failure.attempts == (before.attempts if before else 0) + 1
    assert 3.9 <= waits[0] <= 6.1
    assert all(200 <= wait <= 361 for wait in waits[-4:])


def test_a_scan_leaves_alone_what_waits_for_its_next_try(bed: Bed) -> None:
    """A failed file is not queued again before its backoff ends, and it counts as pending all the same."""
    bed.write("x", b"content")
    bed.store.before["put"] = _refused
    bed.scan()
    bed.work()
    bed.scan()
    assert not bed.files.knows("x")
    assert bed.files.pending() == 1
    del bed.store.before["put"]
    bed.settle()
    assert bed.content("x") == b"content"
    assert bed.files.snapshot().failed == 0


def test_a_scan_passes_by_failing_files_when_enough_of_them_wait(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan neither opens the other failed files nor waits for them: the good file is found in the same scan."""
    bed = make(queue_size=3)
    bed.store.before["put"] = lambda name: None if name == "run/good" else _refused(name)
    for number in range(20):
        bed.write(f"bad-{number}", b"content")
    for _ in range(10):
        bed.backlog.small.wait_for_room = lambda *_: bed.work()  # type: ignore[method-assign]
        bed.scan()
        bed.work()
    assert bed.files.snapshot().failed == 20
    for number in range(20):
        bed.retry_now(f"bad-{number}")
    bed.write("good", b"content")
    bed.backlog.small.wait_for_room = lambda *_: pytest.fail("it waits")  # type: ignore[method-assign]
    looks = Counter[str]()
    read = fingerprint.read

    def counted(folder: int | None, name: str) -> tuple[int, fingerprint.Fingerprint]:
        looks.update([name] if folder is not None else [])  # without a folder: the mark
        return read(folder, name)

    monkeypatch.setattr(fingerprint, "read", counted)
    bed.scan()
    assert bed.files.knows("good")
    assert looks.total() == 3 + 1
    bed.work()
    assert bed.content("good") == b"content"


def _refused(_: str) -> None:
    raise StoreRefused("no")


def test_a_failed_file_goes_at_once_when_somebody_asks_for_it(bed: Bed) -> None:
    """What was mended does not wait for minutes, and not for ever where nobody would have tried it again."""
    faults = {"run/bad": StoreAway("not now"), "run/name": NameRefused("no such name")}

    def fault(name: str) -> None:
        if name in faults:
            raise faults[name]

    bed.store.before["put"] = fault
    for name in ("bad", "name"):
        bed.write(name, b"mended")
    bed.scan()
    bed.work()
    assert {one.path: one.next_try is None for one in bed.files.snapshot(9).current} == {"bad": False, "name": True}
    faults.clear()
    bed.scan()
    bed.work()
    assert bed.store.writes == [], "not due yet"
    assert bed.files.retry("name") == 1
    bed.scan()
    bed.work()
    assert bed.store.writes == ["run/name"]
    assert bed.files.retry() == 1
    bed.scan()
    bed.work()
    assert bed.store.writes == ["run/name", "run/bad"]
    assert bed.files.retry() == 0


def test_the_same_reason_of_a_file_is_logged_once_until_it_changes(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of hopeless files do not fill the log; an id of the request that differs is no other reason."""
    for number in range(3):
        bed.files.fail("x", StoreRefused(f"the store said no (x-ms-request-id {number})"))
    bed.files.fail("x", StoreAway("not now"))
    bed.files.fail("x", StoreAway("not now"))
    bed.files.fail("y", StoreAway("not now"))
    told = [(record.path, record.attempt) for record in caplog.records if record.message == names.FILE_FAILED]  # type: ignore[attr-defined]
    assert told == [("x", 1), ("x", 4), ("y", 1)]

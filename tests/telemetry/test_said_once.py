"""The log is bounded: the same fact about the same file is not said again until it changes."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.invariants.bed import BLOCK, Bed
from uploader.blob.reach import Reach
from uploader.errors import LeftoverBlocks, NameRefused, StoreAway, StoreRefused
from uploader.share.claim import Claim
from uploader.telemetry import json_log, names, told
from uploader.telemetry.told import Told

ROUNDS = 6


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bed]]:
    beds = []

    def made(**settings: Any) -> Bed:
        (tmp_path / "share").mkdir(exist_ok=True)
        beds.append(Bed(tmp_path / "share", **settings))
        return beds[-1]

    yield made
    for bed in beds:
        bed.close()


def fails(error: type[Exception], what: str = "put") -> Callable[[Bed], None]:
    """Let the store refuse a file, each time with another id of the request."""

    def arranged(bed: Bed) -> None:
        numbers = iter(range(1000))

        def no(_: str) -> None:
            raise error(f"the blob store answered 409 No (x-ms-request-id {next(numbers)})")

        bed.store.before[what] = no
        bed.write("x", b"x" * (1 if what == "put" else 3 * BLOCK))

    return arranged


def conflict(bed: Bed) -> None:
    bed.write("x", b"first")
    bed.settle()
    bed.write("x", b"other")


def linked(bed: Bed) -> None:
    os.link(bed.write("x", b"content"), bed.root / "elsewhere")


def odd(bed: Bed) -> None:
    (bed.folder / "link").symlink_to("nowhere")
    os.mkfifo(bed.folder / "pipe")


def unsendable(bed: Bed) -> None:
    bed.write("ends with a dot.", b"x")
    bed.write("RUN.COMPLETED", b"x")


def in_the_way(bed: Bed) -> None:
    bed.write("x", b"x")
    (bed.folder / "x.processing").mkdir()


def unproven(bed: Bed) -> None:
    (bed.folder / "x.completed").write_bytes(b"nobody has sent this")


def unreadable(bed: Bed) -> None:
    bed.write("x", b"x")

    def no(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    bed.store.before["put"] = no


def grows(bed: Bed) -> None:
    bed.store.before["put"] = lambda _: bed.append("x.processing", b"more")
    bed.write("x", b"x")


def resumed(bed: Bed) -> None:
    fails(StoreRefused, "commit")(bed)


def present(bed: Bed) -> None:
    """The blob is there; while its file is read, something comes to stand where `.completed` would."""
    bed.write("x", b"x")

    def comes(_: str) -> None:
        if not (bed.folder / "x.completed").exists():
            (bed.folder / "x.completed").write_bytes(b"somebody's")

    bed.store.before["put"] = comes
    bed.store.before["head"] = comes


def folder_gone(bed: Bed) -> None:
    bed.folder.rename(bed.root / "elsewhere")


KINDS: dict[str, tuple[Callable[[Bed], None], set[str]]] = {
    "other content, refused": (conflict, {names.FILE_FAILED}),
    "refused by the store": (fails(StoreRefused), {names.FILE_FAILED}),
    "refused by its name": (fails(NameRefused), {names.FILE_FAILED}),
    "the store does not answer": (fails(StoreAway), {names.FILE_FAILED}),
    "blocks of another tool": (
        fails(LeftoverBlocks, "commit"),
        {names.FILE_FAILED, names.UPLOAD_RECOVERED, names.UPLOAD_RESUMED},
    ),
    "a fault of ours": (fails(RuntimeError), {names.FILE_FAILED}),
    "links and pipes": (odd, {names.FILE_FAILED}),
    "a hard link elsewhere": (linked, set()),
    "names that no blob can have": (unsendable, {names.FILE_FAILED}),
    "a folder where its claim would be": (in_the_way, {names.FILE_FAILED}),
    "a leftover that is not proven": (unproven, {names.FILE_UNPROVEN}),
    "may not be read": (unreadable, {names.FILE_FAILED}),
    "open for writing, or growing": (grows, {names.FILE_GIVEN_BACK}),
    "a large file whose blocks are there": (resumed, {names.FILE_FAILED, names.UPLOAD_RESUMED}),
    "the blob is there, its end is in the way": (present, {names.FILE_FAILED, names.FILE_UNPROVEN}),
    "the session's folder is gone": (folder_gone, {names.SESSION_FOLDER_MISSING}),
}
ONCE_A_FILE = {names.FILE_COMPLETED, names.FILE_DELETED, names.SHARE_TELLS}


def events(records: list[logging.LogRecord]) -> Counter[tuple[str, str]]:
    """Count lines by event and file."""
    found: Counter[tuple[str, str]] = Counter()
    for one in records:
        of = getattr(one, "path", "") or getattr(one, "blob", "")
        if one.msg not in ONCE_A_FILE:
            found[str(one.msg), str(of)] += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_fact_about_a_file_is_said_once(
    make: Callable[..., Bed], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a file is tried in vain, the log has one line for it: thousands of them would fill a disk."""
    bed = make(on_conflict="refuse")
    with caplog.at_level(logging.INFO):
        arrange, told_of = KINDS[kind]
        arrange(bed)
        caplog.clear()
        for _ in range(ROUNDS):
            bed.files.retry()
            bed.scan()
            bed.work()
            if bed.folder.exists():
                bed.walk()
    said = events(caplog.records)
    assert {event for event, _ in said} - {names.SHARE_NOT_A_MOUNT} == told_of
    assert set(said.values()) <= {1}, said


def test_a_fact_that_changes_is_said_again(make: Callable[..., Bed], caplog: pytest.LogCaptureFixture) -> None:
    """Another reason is news, and so is the same one after the file was sent in between."""
    bed, why = make(), ["no", "no", "never", "never"]

    def no(_: str) -> None:
        if why:
            raise StoreRefused(why.pop(0))

    bed.store.before["put"] = no
    bed.write("x", b"x")
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            bed.files.retry()
            bed.scan()
            bed.work()
    said = [one.error for one in caplog.records if one.msg == names.FILE_FAILED]  # type: ignore[attr-defined]
    assert said == ["no", "never"]
    assert bed.content("x") == b"x"
    why.append("no")
    bed.walk()
    bed.due()
    caplog.clear()
    bed.write("x", b"y")
    bed.scan()
    bed.work()
    assert [one.msg for one in caplog.records].count(names.FILE_FAILED) == 1


def test_a_blob_that_is_found_again_and_again_is_said_once(
    make: Callable[..., Bed], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file cannot become `.completed`: each try finds that nothing has to be sent."""
    bed = make()

    def no(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Claim, "complete", no)
    bed.write("x", b"x")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(ROUNDS):
            bed.files.retry()
            bed.scan()
            bed.work()
    assert events(caplog.records) == {(names.FILE_FAILED, "x"): 1, (names.UPLOAD_PRESENT, "run/x"): 1}


def test_an_outage_of_the_store_is_said_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    """An hour of it is one line, and its end another."""
    left = [*(f"no answer (x-ms-request-id {number})" for number in range(100)), *["the name is not known"] * 100]

    def ask() -> None:
        if left:
            raise StoreAway(left.pop(0))

    with caplog.at_level(logging.INFO):
        Reach(ask).settle(sleep=lambda _: None)
    assert [one.msg for one in caplog.records] == [names.STORE_AWAY, names.STORE_AWAY, names.STORE_BACK]


def test_receipts_that_do_not_get_through_are_said_once(
    make: Callable[..., Bed], caplog: pytest.LogCaptureFixture
) -> None:
    """The store's answers differ in the id of the request only."""
    bed, numbers = make(), iter(range(1000))

    def no(name: str) -> None:
        if ".receipts" in name:
            raise StoreRefused(f"the blob store answered 403 No (x-ms-request-id {next(numbers)})")

    bed.write("x", b"x")
    bed.settle()
    bed.store.before["stage"] = no
    bed.session.stopped = True
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(ROUNDS):
            bed.walk()
    assert [one.msg for one in caplog.records] == [names.RECEIPTS_FAILED]


def test_a_session_that_cannot_be_swept_is_said_once(
    make: Callable[..., Bed], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record cannot be removed, say: the sweeper tries each few seconds."""
    bed = make()

    def no(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(bed.session, "swept", no)
    bed.session.stopped = True
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(ROUNDS):
            bed.walk()
    assert [one.msg for one in caplog.records] == [names.RECONCILE_FAILED]


def test_equal_lines_of_a_library_pass_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who sends nonsense to the port a thousand times a second writes no log of it."""
    now = [1000.0]
    monkeypatch.setattr(json_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    seldom = json_log.Seldom()

    def passes(message: str, name: str = "uvicorn.error") -> bool:
        return seldom.filter(logging.LogRecord(name, logging.WARNING, "", 1, message, None, None))

    assert [passes("Invalid HTTP request received.") for _ in range(1000)].count(True) == 1
    assert passes("Something else.")
    assert all(passes(names.FILE_COMPLETED, "uploader.upload.worker") for _ in range(3))
    now[0] += json_log.SELDOM
    assert passes("Invalid HTTP request received.")
    assert [passes(f"line {number}") for number in range(3000)].count(True) == json_log.MOST - 1, "memory is bounded"


def test_what_was_told_is_bounded() -> None:
    """A session of a million files that change under the reader takes no more memory than one of thousands."""
    it = Told()
    assert all(it.news(names.FILE_GIVEN_BACK, str(number)) for number in range(told.MOST + 10))
    assert len(it._facts) == told.MOST
    assert not it.news(names.FILE_GIVEN_BACK, str(told.MOST))
    it.over(names.FILE_GIVEN_BACK, str(told.MOST))
    assert it.news(names.FILE_GIVEN_BACK, str(told.MOST))

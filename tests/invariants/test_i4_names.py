"""I4: no rename overwrites something unproven, whoever made it and in whatever order names come again."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.invariants.bed import BLOCK, Bed
from uploader.errors import StoreAway
from uploader.share.fingerprint import Fingerprint

LARGE = 3 * BLOCK


def sent(bed: Bed) -> list[str]:
    """Collect the first six bytes of each file as it is written to the store."""
    contents: list[str] = []

    def hook(_: str) -> None:
        path = bed.folder / "x.processing"
        contents.append(path.read_bytes()[:6].decode())

    bed.store.before["put"] = bed.store.before["commit"] = hook
    return contents


@pytest.mark.parametrize("tail", [b"", b"-" * LARGE])
def test_an_older_claim_is_finished_before_a_new_file_of_its_name(bed: Bed, tail: bytes) -> None:
    """Both versions reach the store, the newer one last, so the blob ends as the producer meant."""
    order = sent(bed)
    bed.write("x.processing", b"first " + tail)
    bed.write("x", b"second" + tail)
    bed.upload("x")
    assert bed.names() == ["x", "x.completed"]
    bed.settle()
    assert order[0] == "first "
    assert order[-1] == "second"
    assert bed.content("x") == b"second" + tail
    assert bed.names() == []


def test_a_name_that_comes_again_while_it_is_sent_is_sent_afterwards(bed: Bed) -> None:
    """A producer may write a name again at any time: the second file is sent when the first is done."""
    bed.write("x", b"first")
    bed.store.before["put"] = lambda _: bed.write("x", b"second")
    item = bed.item("x")
    bed.handle(item)
    del bed.store.before["put"]
    assert bed.content("x") == b"first"
    bed.settle()
    assert bed.content("x") == b"second"
    assert bed.names() == []


def test_a_new_file_waits_for_a_completed_one_that_nobody_can_prove(bed: Bed) -> None:
    """An unproven `.completed` file is never overwritten; status says why the new file waits."""
    bed.write("x.completed", b"somebody's")
    bed.write("x", b"ours")
    bed.settle()
    assert bed.names() == ["x", "x.completed"]
    assert (bed.folder / "x.completed").read_bytes() == b"somebody's"
    assert "cannot be proven to be in the store" in bed.error("x")
    assert bed.store.writes == []


def test_a_completed_one_that_appears_during_the_upload_is_not_overwritten(bed: Bed) -> None:
    """The upload is kept as `.processing` until the stranger's file has been moved away."""
    bed.write("x", b"ours")
    bed.store.before["put"] = lambda _: bed.write("x.completed", b"somebody's")
    bed.upload("x")
    assert bed.names() == ["x.completed", "x.processing"]
    assert (bed.folder / "x.completed").read_bytes() == b"somebody's"
    (bed.folder / "x.completed").unlink()
    bed.settle()
    assert bed.names() == []


def test_a_store_that_is_away_leaves_both_where_they_are(make: Callable[..., Bed]) -> None:
    """An older `.completed` file that cannot be compared now is kept, and the new one waits for it."""
    before = make()
    before.write("x", b"first")
    before.upload("x")
    bed = make(before)

    def away(_: str) -> None:
        raise StoreAway("not now")

    bed.store.before["head"] = away
    bed.write("x", b"second")
    bed.upload("x")
    assert bed.names() == ["x", "x.completed"]
    del bed.store.before["head"]
    bed.settle()
    assert bed.content("x") == b"second"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_completed_file_that_was_written_to_is_sent_before_its_successor(
    make: Callable[..., Bed], restarted: bool
) -> None:
    """What a slow writer added to the first file is in the store before the second file replaces it."""
    bed = make()
    bed.write("x", b"first")
    bed.upload("x")
    bed.append("x.completed", b", its end")
    bed = make(bed) if restarted else bed
    order = sent(bed)
    bed.write("x", b"second")
    bed.upload("x")
    assert order[0] == "first,"
    assert bed.content("x") == b"first, its end"
    bed.settle()
    assert bed.content("x") == b"second"
    assert bed.names() == []


def test_a_claim_is_not_given_back_over_a_new_file(bed: Bed) -> None:
    """A stop without drain, during an upload whose name has come again, leaves both files as they are."""
    bed.write("x", b"first " * LARGE)

    def cancel(_: str) -> None:
        bed.write("x", b"second")
        bed.files.cancel()

    bed.store.before["stage"] = cancel
    bed.upload("x")
    assert (bed.folder / "x").read_bytes() == b"second"
    assert (bed.folder / "x.processing").read_bytes() == b"first " * LARGE
    bed.give_back()
    assert bed.names() == ["x", "x.processing"]


def test_the_sweeper_leaves_a_name_alone_that_a_worker_has(bed: Bed) -> None:
    """Neither the due list nor the walk deletes a `.completed` file while a worker deals with its successor."""
    bed.write("x", b"first")
    bed.upload("x")
    bed.write("x", b"second")
    bed.item("x")
    bed.due()
    assert bed.names() == ["x", "x.completed"]
    bed.completed.proofs.forget(("run", "x"))  # as after a restart: it is the walk that finds it
    bed.walk()
    assert bed.names() == ["x", "x.completed"]


def test_no_worker_gets_a_name_that_the_sweeper_has(make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the sweeper takes a changed file back, between link and unlink, no worker may claim the newer file."""
    bed = make()
    bed.write("x", b"first")
    bed.upload("x")
    bed.append("x.completed", b", its end")
    bed.write("x", b"second")
    unlink = os.unlink
    offered: list[bool] = []

    def between(path: str, *, dir_fd: int) -> None:
        bed.scan()
        offered.append(bed.backlog.waits(bed.files))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", between)
    bed.due()
    monkeypatch.undo()
    assert offered == [False]
    assert bed.names() == ["x", "x.processing"]
    bed.settle()
    assert bed.content("x") == b"second"


class Had(Counter[str]):
    """Counts who has held the path, and how often two held it at once."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def hold(self, who: str) -> None:
        if self._lock.acquire(blocking=False):
            self[who] += 1
            time.sleep(0.0002)
            self._lock.release()
        else:
            self["two at once"] += 1


def test_path_is_had_by_one_of_many_threads(bed: Bed) -> None:
    """A path is offered to workers and reserved by the sweeper: never both at one instant."""
    had = Had()

    def worker() -> None:
        while (item := bed.backlog.small.take()).path == "x":
            had.hold("worker")
            bed.files.done(item)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 200  # bounds a hang only
    while min(had["worker"], had["sweeper"]) < 200 and time.monotonic() < end:
        bed.backlog.offer(bed.files, "x", Fingerprint(1, 1, 1, 1))
        for _ in range(4):
            time.sleep(0.0001)
            with bed.files.reserve("x") as alone:
                if alone:
                    had.hold("sweeper")
    for number in range(len(threads)):
        bed.backlog.offer(bed.files, f"end-{number}", Fingerprint(1, 1, 1, 1))
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert had["two at once"] == 0
    assert min(had["worker"], had["sweeper"]) >= 200

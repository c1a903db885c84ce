"""I5: killed at any instant, a new process comes to the same end, and sends again no more than was in flight."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.invariants import killing
from tests.invariants.bed import BLOCK, Bed
from tests.support.blobs import azure_blobs
from uploader.blob.azure import AzureBlobs
from uploader.sessions.records import Records

LARGE = 5 * BLOCK + 7
IN_FLIGHT = 2  # blocks of one file: half of the bed's 4 connections


class Scene:
    """A share, and a real endpoint in the test's process that outlives those that are killed."""

    def __init__(self, root: Path, endpoint: Endpoint, store: AzureBlobs) -> None:
        self.root = root
        self.endpoint = endpoint
        self.store = store

    def run(self, work: Callable[[Bed], object]) -> None:
        bed = Bed(self.root, self.store)
        work(bed)
        bed.close()

    def at_every_step(self, work: killing.Work, prepare: Callable[[], object], check: Callable[[], None]) -> int:
        """Kill the work before each of its steps in turn; the next process must leave nothing behind each time."""

        def check_all() -> None:
            self.run(Bed.settle)
            check()
            assert [path for path in (self.root / "run").rglob("*") if path.is_file()] == []

        return killing.at_every_step(work, self.root, self.endpoint.connection_string, prepare, check_all)

    def blob(self, path: str) -> bytes:
        return self.endpoint.store.blob("uploads", f"run/{path}").content

    def sent(self) -> int:
        log = self.endpoint.log
        return log.received(Operation.PUT_BLOB) + log.received(Operation.PUT_BLOCK)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "share").mkdir()
    with Endpoint() as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        yield Scene(tmp_path / "share", endpoint, store)


@pytest.mark.parametrize("size", [100, LARGE])
def test_an_upload_and_its_sweep(scene: Scene, size: int) -> None:
    """Killed at any step: the blob is right, the share is empty, and only blocks in flight were sent twice."""
    content = os.urandom(size)

    def prepare() -> None:
        scene.run(lambda bed: bed.write("a/x.bin", content))
        scene.endpoint.store.container("uploads").clear()
        scene.endpoint.log.clear()

    def check() -> None:
        assert scene.blob("a/x.bin") == content
        assert scene.sent() <= size + IN_FLIGHT * min(size, BLOCK)

    assert scene.at_every_step(killing.settle, prepare, check) >= 5


def test_a_name_that_comes_again(scene: Scene) -> None:
    """The first file is completed and not yet swept when the second arrives: the second ends in the store."""
    first, second = os.urandom(100), os.urandom(100)

    def before(bed: Bed) -> None:
        bed.write("x", first)
        bed.upload("x")
        bed.write("x", second)

    def check() -> None:
        assert scene.blob("x") == second

    assert scene.at_every_step(killing.settle, lambda: scene.run(before), check) >= 5


def test_a_file_that_was_written_to_after_its_commit(scene: Scene) -> None:
    """Killed at any step of taking it back and sending it again: the blob holds what the slow writer added."""

    def before(bed: Bed) -> None:
        bed.write("x", b"begin")
        bed.upload("x")
        bed.append("x.completed", b" and end")

    def check() -> None:
        assert scene.blob("x") == b"begin and end"

    assert scene.at_every_step(killing.settle, lambda: scene.run(before), check) >= 5


def test_a_stop_that_gives_claims_back(scene: Scene) -> None:
    """Killed between link and unlink, a file has two names: its content is sent only once all the same."""
    content = os.urandom(LARGE)

    def prepare() -> None:
        scene.run(lambda bed: bed.write("x.processing", content))
        scene.endpoint.store.container("uploads").clear()
        scene.endpoint.log.clear()

    def check() -> None:
        assert scene.blob("x") == content
        assert scene.sent() == LARGE

    assert scene.at_every_step(killing.give_back, prepare, check) >= 2


def test_a_file_that_was_given_back_settles_in_the_next_process_too(make: Callable[..., Bed]) -> None:
    """The ctime comes from our own link and unlink: the next process must not take it for a sign."""
    bed = make(settle=3600)
    path = bed.write("x.bin", b"content")
    item = bed.item("x.bin")
    with path.open("ab") as writer:
        writer.write(b"!")
    bed.tick()  # the ctime of the giving back must be later
    bed.handle(item)
    assert bed.names() == ["x.bin"]
    assert path.stat().st_ctime_ns > path.stat().st_mtime_ns
    after = make(bed, settle=3600)
    after.scan()
    after.due_now("x.bin")
    after.scan()
    assert not after.files.knows("x.bin")
    assert after.files.pending() == 1


def test_a_record_is_whole_or_not_there(tmp_path: Path) -> None:
    """Killed while it writes a record, a process leaves no half of it; the next start removes its temporary file."""

    def check() -> None:
        assert Records(tmp_path, 0).get("run") in {None, killing.FIRST, killing.SECOND}
        assert [path.name for path in tmp_path.iterdir()] in ([], ["run.json"])
        Records(tmp_path, 0).remove("run")

    assert killing.at_every_step(killing.change_records, tmp_path, "", lambda: None, check) == 4

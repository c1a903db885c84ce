"""I12: other content under a blob's name never vanishes without a trace, whoever dies or sleeps meanwhile."""

import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.faults import Do, Fault, Refuse, Reset
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.invariants.bed import BLOCK, Bed
from tests.support.blobs import CONTAINER, ServiceStore, azure_blobs
from uploader.telemetry import names

SIZES = [1000, 3 * BLOCK]
WRITES = [Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST, Operation.SET_METADATA, Operation.SNAPSHOT_BLOB]
STEPS = ["Set Blob Metadata", "List Blobs", "Snapshot Blob", "Set Blob Metadata again", "the write"]
CALLS = [Operation.SET_METADATA, Operation.LIST_BLOBS, Operation.SNAPSHOT_BLOB, Operation.SET_METADATA]


class Scene:
    """Shards of one session, a store behind the real adapter, and every content that was ever sent."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        root.mkdir()
        self.stack = stack
        self.endpoint = stack.enter_context(Endpoint(ServiceStore()))

    def bed(self, **settings: Any) -> Bed:
        store = self.stack.enter_context(azure_blobs(self.endpoint.connection_string, self.root, timeout=5))
        bed = Bed(self.root, store, **settings)
        self.stack.callback(bed.close)
        return bed

    def blob(self, name: str = "run/x") -> bytes:
        return self.endpoint.store.blob(CONTAINER, name).content

    def kept(self, name: str = "run/x") -> list[bytes]:
        return sorted(self.endpoint.store.kept(CONTAINER, name).values())

    def written(self) -> int:
        return sum(request.status < 300 for one in WRITES for request in self.endpoint.log.of(one))

    def step(self, fault: Fault, step: str, size: int) -> Any:
        """Plan a fault for one step of a conflict."""
        if step == STEPS[-1]:
            # the condition names the version that was kept
            last = Operation.PUT_BLOB if size <= BLOCK else Operation.PUT_BLOCK_LIST
            return self.endpoint.faults.add(fault, last, when=lambda one: "If-Match" in one.headers)
        return self.endpoint.faults.add(fault, CALLS[STEPS.index(step)], skip=int(step.endswith("again")))


@pytest.fixture
def scene(tmp_path: Path, stack: ExitStack) -> Scene:
    return Scene(tmp_path / "share", stack)


def sent(bed: Bed, content: bytes, path: str = "x") -> None:
    """Let a file arrive and bring it to its end."""
    bed.write(path, content)
    bed.settle()
    bed.due()


# --- what is done


@pytest.mark.parametrize("size", SIZES)
def test_other_content_is_kept_as_a_snapshot_first(scene: Scene, size: int, caplog: pytest.LogCaptureFixture) -> None:
    bed = scene.bed()
    first, second = os.urandom(size), os.urandom(size)
    sent(bed, first)
    etag = scene.endpoint.store.blob(CONTAINER, "run/x").etag
    with caplog.at_level(logging.INFO):
        sent(bed, second)
    assert scene.blob() == second
    assert scene.kept() == [first]
    (snapshot,) = scene.endpoint.store.kept(CONTAINER, "run/x")
    (said,) = [one for one in caplog.records if one.msg == names.FILE_REPLACED]
    assert (said.path, said.etag, said.snapshot) == ("x", etag.strip('"'), snapshot)  # type: ignore[attr-defined]
    stored = bed.store.head("run/x")
    assert stored.replaced.etag == etag.strip('"')
    assert stored.replaced.snapshot == snapshot
    assert bed.names() == []


@pytest.mark.parametrize("size", SIZES)
def test_other_content_is_replaced_where_the_site_says_so(scene: Scene, size: int) -> None:
    bed = scene.bed(on_conflict="replace")
    sent(bed, os.urandom(size))
    sent(bed, second := os.urandom(size))
    assert scene.blob() == second
    assert scene.kept() == []
    assert bed.store.head("run/x").replaced.snapshot is None


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_refused_until_the_blob_is_gone(scene: Scene, size: int) -> None:
    """It is shown as failed with its reason, sends nothing meanwhile, and goes as soon as somebody removes the blob."""
    bed = scene.bed(on_conflict="refuse")
    sent(bed, first := os.urandom(size))
    bed.write("x", second := os.urandom(size))
    bed.upload("x")
    scene.endpoint.log.clear()
    bed.retry_now("x")
    bed.scan()
    bed.work()
    assert "refused" in bed.error("x")
    assert scene.blob() == first
    assert scene.written() == 0
    assert scene.endpoint.log.of(Operation.PUT_BLOCK) == []
    assert bed.names() == ["x.processing"]
    scene.endpoint.store.delete(CONTAINER, "run/x")
    bed.settle()
    assert scene.blob() == second
    assert bed.names() == []


def test_an_account_that_knows_no_snapshots_makes_the_file_wait_with_that_reason(scene: Scene) -> None:
    bed = scene.bed()
    sent(bed, b"first")
    refused = scene.endpoint.faults.add(Refuse(409, "FeatureNotSupported"), Operation.SNAPSHOT_BLOB, times=100)
    bed.write("x", b"second")
    bed.upload("x")
    assert refused.hits == 1
    assert "knows no snapshots" in bed.error("x")
    assert "NFS_WATCH_ON_CONFLICT" in bed.error("x")
    assert scene.blob() == b"first"
    other = scene.bed(on_conflict="replace")
    other.settle()
    assert scene.blob() == b"second"


def test_credentials_that_may_not_list_are_enough(scene: Scene) -> None:
    bed = scene.bed()
    sent(bed, b"first")
    scene.endpoint.faults.add(Refuse(403, "AuthorizationPermissionMismatch"), Operation.LIST_BLOBS, times=100)
    scene.step(Reset(), STEPS[-1], 6).times = 4
    bed.write("x", b"second")
    bed.upload("x")
    bed.settle()
    assert scene.blob() == b"second"
    assert scene.kept() == [b"first"], "what was kept is written on the blob until it is replaced"


# --- what is no conflict


@pytest.mark.parametrize("size", SIZES)
def test_the_same_content_again_is_not_written(scene: Scene, size: int) -> None:
    bed = scene.bed()
    content = os.urandom(size)
    sent(bed, content)
    scene.endpoint.log.clear()
    sent(bed, content)
    assert bed.names() == []
    assert scene.kept() == []
    assert scene.endpoint.store.blob(CONTAINER, "run/x").content == content
    done = [one for call in WRITES[:2] for one in scene.endpoint.log.of(call) if one.status == 201]
    assert done == []
    assert scene.endpoint.log.of(Operation.PUT_BLOCK) == []


@pytest.mark.parametrize("size", SIZES)
def test_a_longer_file_that_begins_as_the_blob_is_the_same_file(scene: Scene, size: int) -> None:
    """A transfer that was resumed by name, into a new file."""
    bed = scene.bed()
    whole = os.urandom(2 * size)
    sent(bed, whole[:size])
    sent(bed, whole)
    assert scene.blob() == whole
    assert scene.kept() == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overwritten", [False, True])
def test_the_very_file_that_was_still_being_written_is_the_same_file(
    scene: Scene, size: int, overwritten: bool
) -> None:
    """Also where it was preallocated, and filled from anywhere."""
    bed = scene.bed()
    bed.write("x", os.urandom(size))
    bed.upload("x")
    with (bed.folder / "x.completed").open("r+b") as late:
        late.seek(0 if overwritten else size)
        late.write(b"late")
    bed.settle()
    bed.due()
    assert bed.names() == []
    assert len(scene.blob()) == size + (0 if overwritten else 4)
    assert scene.kept() == []


def test_a_file_that_grew_still_says_what_it_replaced(scene: Scene) -> None:
    bed = scene.bed()
    sent(bed, b"first")
    bed.write("x", b"second")
    bed.upload("x")
    bed.append("x.completed", b" and more")
    bed.settle()
    assert scene.blob() == b"second and more"
    assert scene.kept() == [b"first"]
    assert bed.store.head("run/x").replaced is not None


# --- whoever dies, or sleeps


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_each_step_may_fail_or_lose_its_reply(scene: Scene, step: str, after: bool, size: int) -> None:
    """The next process finds one snapshot of each content, or none yet, and leaves one."""
    bed = scene.bed()
    first, second = os.urandom(size), os.urandom(size)
    sent(bed, first)
    planned = scene.step(Reset(after_effect=after), step, size)
    bed.write("x", second)
    bed.upload("x")
    assert planned.hits == 1
    scene.endpoint.faults.clear()
    scene.bed().settle()
    assert scene.blob() == second
    assert scene.kept() == [first]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", STEPS)
def test_a_process_may_die_before_each_step(scene: Scene, step: str, size: int) -> None:
    """It never hears of its last request, nor does anything afterwards."""
    bed = scene.bed()
    first, second = os.urandom(size), os.urandom(size)
    sent(bed, first)
    bed.write("x", second)
    item = bed.item("x")
    name = {"the write": "put" if size <= BLOCK else "commit", "List Blobs": "snapshots", "Snapshot Blob": "snapshot"}
    call = name.get(step, "annotate")
    turns = [1, 0] if step.endswith("again") else [0]
    real = getattr(bed.store, call)

    def dying(*args: Any) -> Any:
        if turns.pop() or (call == "put" and args[-1] is None):
            turns.append(0)
            return real(*args)
        raise SystemExit

    turns.reverse()
    setattr(bed.store, call, dying)
    with pytest.raises(SystemExit):
        bed.handle(item)
    scene.bed().settle()
    assert scene.blob() == second
    assert scene.kept() == [first]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("done", [False, True])
def test_two_writers_leave_one_snapshot_of_each_content(scene: Scene, step: str, size: int, done: bool) -> None:
    """A writer that sleeps at any step, while the other owner does all of it: the same file, or the next as well."""
    ours, other = scene.bed(), scene.bed()
    first, second, third = (os.urandom(size) for _ in range(3))
    sent(ours, first)

    def meanwhile(_: object) -> None:
        scene.endpoint.faults.clear()
        other.upload("x", "x.processing")
        if done:
            other.due()
            other.write("x", third)
            other.upload("x")

    planned = scene.step(Do(meanwhile), step, size)
    ours.write("x", second)
    ours.upload("x")
    assert planned.hits == 1
    for _ in range(2):
        ours.settle()
        other.settle()
    assert scene.blob() == (third if done else second)
    assert scene.kept() == sorted([first, second] if done else [first])


# --- producers that use a name again: every byte is in the blob or in a snapshot


def everything(scene: Scene, name: str = "run/x") -> list[bytes]:
    return sorted([scene.blob(name), *scene.kept(name)])


def test_a_logger_that_appends_to_a_name_loses_no_line(scene: Scene) -> None:
    """After each sweep `>>` makes a new file with the new lines only."""
    bed = scene.bed()
    lines = [f"line {number}\n".encode() for number in range(5)]
    for line in lines:
        with (bed.folder / "x").open("ab") as log:
            log.write(line)
        bed.settle()
        bed.due()
        assert bed.names() == []
    assert everything(scene) == lines


def test_a_counter_that_wraps_loses_no_picture(scene: Scene) -> None:
    bed = scene.bed()
    pictures = {f"{turn}-{number}": os.urandom(1000) for turn in range(3) for number in range(3)}
    for name, picture in pictures.items():
        sent(bed, picture, f"IMG_{name[-1]}.jpg")
    for number in range(3):
        taken = sorted(picture for name, picture in pictures.items() if name.endswith(str(number)))
        assert everything(scene, f"run/IMG_{number}.jpg") == taken


def test_a_session_name_that_is_used_again_loses_nothing(scene: Scene) -> None:
    first, second = os.urandom(2 * BLOCK), os.urandom(2 * BLOCK)
    sent(scene.bed(), first)
    sent(scene.bed(), second)
    assert everything(scene) == sorted([first, second])


def test_content_that_comes_back_is_kept_once(scene: Scene) -> None:
    """Of each content one snapshot, however often it is replaced."""
    bed = scene.bed()
    for content in [b"odd", b"even", b"odd", b"even", b"odd"]:
        sent(bed, content)
    assert scene.blob() == b"odd"
    assert scene.kept() == [b"even", b"odd"]

"""I10: memory is bounded by settings, whatever the backlog or file size."""

import os
import random
import threading
import tracemalloc
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.store import Store
from tests.invariants.bed import BLOCK, Bed
from tests.invariants.site import Site
from tests.support.programs import wait_for
from uploader.blob.store import Meter
from uploader.errors import StoreRefused
from uploader.share.scan import Found
from uploader.upload.memory import Memory

MIB = 2**20


def test_what_is_remembered_of_a_file_until_its_deletion_is_small(tmp_path: Path) -> None:
    """Of up to 100,000 files: what orjson returns is a small line in a buffer of 4 KiB."""
    bed, count = Bed(tmp_path), 100
    for number in range(count):
        bed.write(str(number), b"content")
    bed.upload("0")
    tracemalloc.start()
    try:
        for number in range(1, count):
            bed.upload(str(number))
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/uploader/*")])
    finally:
        tracemalloc.stop()
        bed.close()
    assert 0 < sum(one.size for one in ours.statistics("filename")) < count * 2500


def test_no_more_is_handed_out_than_there_is() -> None:
    """Sixteen threads hold and return buffers at once: never more than the limit is out, and every thread is served."""
    memory = Memory(8 * BLOCK, BLOCK)
    held, most, lock = [0], [0], threading.Lock()
    threads: list[threading.Thread] = []
    holding, asked = list[int](), threading.Event()

    def count(size: int) -> None:
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])

    def keep(seed: int) -> None:
        if seed not in holding:
            holding.append(seed)
            assert asked.wait(60)
        os.sched_yield()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            if chance.random() < 0.5:
                size = chance.randrange(BLOCK + 1)
                with memory.held(size):
                    count(size)
                    keep(seed)
                    count(-size)
            else:
                size = chance.choice([BLOCK, BLOCK, 3 * BLOCK])
                buffer = memory.buffer(size)
                count(len(buffer))
                keep(seed)
                count(-len(buffer))
                memory.give(buffer)

    threads += [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(16)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(holding) + len(memory._waiting) == len(threads), "all of them to ask")
    asked.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"
    assert 4 * BLOCK < most[0] <= 8 * BLOCK
    assert memory.free + memory.spare == 8 * BLOCK


def test_whoever_waits_is_served_in_turn() -> None:
    """A large request is served before smaller ones that came later, so it cannot starve."""
    memory = Memory(2 * BLOCK, BLOCK)
    memory.acquire(2 * BLOCK)
    order: list[int] = []

    def ask(number: int, size: int) -> None:
        memory.acquire(size)
        order.append(number)
        memory.release(size)

    sizes = [2 * BLOCK, 1, 1]
    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in enumerate(sizes)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_for(lambda number=number: len(memory._waiting) == number + 1, "it to queue")
    memory.release(2 * BLOCK)
    for thread in threads:
        thread.join(60)
    assert len(order) == 3
    assert order[0] == 0


def test_a_backlog_of_any_length_is_remembered_only_in_part(make: Callable[..., Bed]) -> None:
    """Of 400 waiting files at most 40 names are held in memory; the others stay on the share and are counted."""
    bed = make(queue_size=20)
    for number in range(200):
        bed.write(f"large/{number}", b"")
        os.truncate(bed.folder / f"large/{number}", 2 * BLOCK)
        bed.write(f"small/{number}", b"content")
    bed.backlog.small.wait_for_room = lambda *_: bed.files.cancel()  # type: ignore[method-assign]
    bed.scan()
    assert sum(bed.files.knows(f"{kind}/{number}") for kind in ("large", "small") for number in range(200)) <= 40
    assert bed.files.pending() >= 200, "what is not remembered is counted all the same"


def test_a_stop_does_not_wait_until_a_long_backlog_is_counted(make: Callable[..., Bed]) -> None:
    """Counting what waits behind a full queue takes minutes in a folder of millions."""
    bed, counted = make(queue_size=20), list[Found]()
    for number in range(100):
        bed.write(f"{number}", b"content")
    walk = bed.discovery.walk

    def cancelled() -> Iterator[Found]:
        for found in walk():
            bed.files.cancel()
            counted.append(found)
            yield found

    bed.discovery.walk = cancelled  # type: ignore[method-assign]
    bed.scan()
    assert len(counted) == 1


def test_settling_files_that_are_not_remembered_hold_a_drain(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there are more settling files than can be remembered, the drain waits until a scan has found the rest."""
    monkeypatch.setattr("uploader.backlog.settling.MAX_SETTLING", 5)
    bed = make(settle=3600, settle_empty=3600)
    for number in range(5):
        bed.write(f"a/{number}", b"")
    bed.discovery.drain()
    bed.scan()
    for path in list((bed.folder / "a").iterdir()):
        path.unlink()
    bed.write("b/last", b"")
    bed.scan()
    assert not bed.discovery.finished
    assert bed.files.pending() >= 1


def test_a_file_that_needs_more_than_there_is_fails_alone(
    make: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose blocks exceed all of the memory fails at once, instead of waiting for ever before the others."""
    monkeypatch.setattr("uploader.upload.block.MAX_BLOCKS", 2)
    bed = make(memory=MIB)
    bed.write("huge", b"")
    os.truncate(bed.folder / "huge", 4 * MIB)
    bed.upload("huge")
    assert "memory" in bed.error("huge").lower()
    bed.write("x", b"content")
    bed.upload("x")
    assert bed.content("x") == b"content"


def test_an_upload_that_fails_ends_after_its_last_block(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in flight still use the upload's buffers: the next file gets that memory when they have ended."""
    slow, waited = threading.Event(), threading.Event()
    stage, wait = bed.store.stage, futures.wait

    def waiting(blocks: Any) -> Any:
        waited.set()
        return wait(blocks)

    monkeypatch.setattr("uploader.upload.blockwise.wait", waiting)

    def staged(name: str, block: str, data: memoryview, crc: int, meter: Meter | None) -> None:
        if b64decode(block)[:4] == b"\0\0\0\0":
            assert slow.wait(60)
            raise StoreRefused("no")
        slow.set()
        assert waited.wait(60), "nobody waits for what is under way"
        stage(name, block, data, crc, meter)

    bed.store.stage = staged
    bed.write("x", os.urandom(4 * BLOCK))
    bed.upload("x")
    assert "no" in bed.error("x")
    assert len(bed.store.blocks("run/x").uncommitted) == 1, "the slow one is there"
    assert bed.memory.free + bed.memory.spare == bed.memory.limit


def test_a_shard_stays_within_its_setting(tmp_path: Path, stack: ExitStack) -> None:
    """Uploading four files of 40 MiB raises the process's peak memory (VmHWM) by less than its setting plus 16 MiB."""
    site = Site(tmp_path, stack, memory=8 * MIB, block_size=MIB, connections=8)
    site.endpoint.store = Store(keep_bytes=False)
    site.up()
    folder = site.start("run")
    for number in range(8):
        (folder / f"{number}").write_bytes(b"warm" * 1000)
    wait_for(lambda: site.status("run")["files"]["completed"] == 8, "the first files")
    before = _most(site.shards[0].pid)
    for number in range(4):
        path = folder / f".{number}"
        with path.open("wb") as file:
            file.truncate(40 * MIB)
        path.rename(folder / f"large-{number}")
    wait_for(lambda: site.status("run")["files"]["completed"] == 12, "the large files", 120)
    assert _most(site.shards[0].pid) - before < 8 * MIB + 16 * MIB


def _most(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

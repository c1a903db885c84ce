"""Nobody waits for others' large files, and no session for another's."""

import time
from collections.abc import Callable
from pathlib import Path

from tests.endpoint.request import Operation
from tests.engine.sending import in_thread
from tests.engine.shards import MIB, Shard, noise, seconds, shard
from tests.programs import wait_for
from uploader.upload.memory import Memory

RATE = 60e6  # bytes per second
BLOCK = 8 * MIB


def test_a_small_file_behind_four_large_ones(tmp_path: Path) -> None:
    """Four files of 1 GiB keep a slow line busy; 10 kB that arrive later are stored within 1 s and one block's time.

    The large ones are sparse and never finish: what is in flight fills the line and the memory all the same.
    """
    with shard(tmp_path, keep_bytes=False) as one:
        one.endpoint.faults.throttle.rate = RATE
        one.session()
        for number in range(4):
            one.arrive(f"run/{number}.bin", 1024 * MIB)
        wait_for(lambda: under_way(one) == {f"run/{number}.bin" for number in range(4)}, "all four in flight")
        wait_for(lambda: one.received() > one.endpoint.faults.throttle.rate * 2, "a line that is busy")
        took = []
        for number in range(5):
            began = time.monotonic()
            one.arrive(f"run/small-{number}.bin", noise(10_000))
            one.stored(f"run/small-{number}.bin")
            took.append(seconds(began))
            time.sleep(0.3)
        print(f"10 kB behind four large files: {', '.join(f'{each:.2f} s' for each in took)}")
        assert max(took) < 1 + BLOCK / RATE
        assert len(one.blobs()) == 5


def under_way(one: Shard) -> set[str]:
    """Return the names of the large blobs for which blocks came."""
    return {request.blob for request in one.endpoint.log.of(Operation.PUT_BLOCK)}


def test_a_small_file_behind_thousands_of_another_session(tmp_path: Path) -> None:
    """Sessions take turns: two files of the second do not wait for the first one's backlog, small or large."""
    with shard(tmp_path, max_sessions=2, connections=8, block_size=MIB, memory=4 * MIB) as one:
        one.endpoint.faults.latency = 0.05
        (one.root / "first").mkdir()
        for number in range(1500):
            (one.root / "first" / f"{number}.bin").write_bytes(b"content")
        for number in range(12):
            one.arrive(f"first/large-{number}.bin", 6 * MIB)
        one.session("first")
        wait_for(lambda: len(one.blobs()) > 50, "the first session to be busy")
        one.session("second")
        one.arrive("second/small.bin", noise(1000))
        one.arrive("second/large.bin", noise(2 * MIB))
        one.stored("second/small.bin", "second/large.bin")
        before = [name for name in one.blobs() if name.startswith("first/")]
        assert len([name for name in before if "large" not in name]) < 1500
        assert len([name for name in before if "large" in name]) < 12
        one.endpoint.faults.latency = 0
        wait_for(lambda: len(one.blobs()) == 1514, "all the others")


def test_room_is_given_in_order_of_arrival() -> None:
    """A large wish is not overtaken for ever by small ones that would fit."""
    memory = Memory(4 * MIB, MIB)
    taken = [memory.buffer(MIB) for _ in range(3)]
    order: list[str] = []

    def wait(name: str, size: int) -> Callable[[], BaseException | None]:
        def get() -> None:
            memory.acquire(size)
            order.append(name)

        ended = in_thread(get)
        time.sleep(0.05)
        return ended

    large = wait("large", 2 * MIB)
    memory.give(taken.pop())
    small = wait("small", 1000)  # it would fit
    assert order == []
    memory.give(taken.pop())
    time.sleep(0.1)
    assert order == ["large"]
    memory.give(taken.pop())
    assert (large(), small()) == (None, None)
    assert order == ["large", "small"]


def test_spare_room_is_for_small_files_only() -> None:
    """Blocks of large files never get it; without it a small file waits its turn."""
    memory = Memory(4 * MIB, MIB)
    taken = [memory.buffer(MIB) for _ in range(3)]
    waiting = in_thread(lambda: memory.give(memory.buffer(MIB)))
    with memory.held(MIB - 1000), memory.held(1000), memory.held(0):
        pass
    with memory.held(1000):
        late = in_thread(lambda: hold(memory, MIB))
        time.sleep(0.1)
        assert memory.free == 0
    for buffer in taken:
        memory.give(buffer)
    assert (waiting(), late()) == (None, None)
    assert memory.free + memory.spare == memory.limit


def hold(memory: Memory, size: int) -> None:
    with memory.held(size):
        pass

"""No small file waits for large ones, and no session for another's backlog."""

import threading
from collections.abc import Callable
from pathlib import Path

from tests.endpoint.faults import Do
from tests.endpoint.request import Operation
from tests.support.programs import wait_for
from tests.upload.sending import in_thread
from tests.upload.shards import MIB, Shard, noise, shard
from uploader.upload.memory import Memory

RATE = 60e6  # bytes per second
BLOCK = 8 * MIB


def test_a_small_file_behind_four_large_ones(tmp_path: Path) -> None:
    """While four files of 1 GiB fill a slow line, 10 kB that arrive later wait for at most 1 s and one block of it.

    The wait is counted in the bytes that go over the line, for on a busy machine the line is slow too. The large files
    are sparse and never finish: what is in flight fills the line and the memory all the same.
    """
    with shard(tmp_path, keep_bytes=False) as one:
        one.endpoint.faults.throttle.rate = RATE
        one.session()
        for number in range(4):
            one.arrive(f"run/{number}.bin", 1024 * MIB)
        wait_for(lambda: under_way(one) == {f"run/{number}.bin" for number in range(4)}, "all four in flight")
        wait_for(lambda: one.received() > one.endpoint.faults.throttle.rate * 2, "a line that is busy")
        passed = []
        for number in range(5):
            before = one.received()
            one.arrive(f"run/small-{number}.bin", noise(10_000))
            one.stored(f"run/small-{number}.bin")
            passed.append(one.received() - before)
            wait_for(lambda: one.received() > before + passed[-1] + BLOCK, "the line to go on")  # noqa: B023
        print(f"10 kB behind four large files waited for {', '.join(f'{each / 1e6:.0f} MB' for each in passed)}")
        assert max(passed) < RATE + BLOCK
        assert len(one.blobs()) == 5


def under_way(one: Shard) -> set[str]:
    """Return the names of the large blobs for which blocks came."""
    return {request.blob for request in one.endpoint.log.of(Operation.PUT_BLOCK)}


def found(one: Shard, session: str) -> int:
    """Return how many of a session's files wait, are sent or are stored."""
    files = one.files(session)
    return files["waiting"] + files["uploading"] + files["completed"]


def test_a_small_file_behind_thousands_of_another_session(tmp_path: Path) -> None:
    """Sessions take turns: a new session's files do not wait for another's backlog, small or large.

    The first session's requests are held until the second one's files are queued, so that most of its own still wait.
    """
    queued = threading.Event()
    with shard(tmp_path, max_sessions=2, connections=8, block_size=MIB, memory=4 * MIB) as one:
        one.endpoint.faults.latency = 0.05
        (one.root / "first").mkdir()
        for number in range(1500):
            (one.root / "first" / f"{number}.bin").write_bytes(b"content")
        for number in range(12):
            one.arrive(f"first/large-{number}.bin", 6 * MIB)
        one.session("first")
        hold = Do(lambda _: queued.wait(200))
        one.endpoint.faults.add(hold, skip=50, times=5000, when=lambda request: request.blob.startswith("first/"))
        wait_for(lambda: len(one.blobs()) >= 20, "the first session to be busy")
        one.session("second")
        one.arrive("second/small.bin", noise(1000))
        one.arrive("second/large.bin", noise(2 * MIB))
        wait_for(lambda: found(one, "second") == 2, "the second session's files to be found")
        queued.set()
        one.stored("second/small.bin", "second/large.bin")
        before = [name for name in one.blobs() if name.startswith("first/")]
        assert len([name for name in before if "large" not in name]) < 1500
        assert len([name for name in before if "large" in name]) < 12
        one.endpoint.faults.latency = 0
        wait_for(lambda: len(one.blobs()) == 1514, "all the others")


def test_room_is_given_in_order_of_arrival() -> None:
    """A large request is not overtaken for ever by small ones that would fit."""
    memory = Memory(4 * MIB, MIB)
    taken = [memory.buffer(MIB) for _ in range(3)]
    order: list[str] = []

    waits: list[str] = []

    def wait(name: str, size: int) -> Callable[[], BaseException | None]:
        def get() -> None:
            memory.acquire(size)
            order.append(name)

        waits.append(name)
        ended = in_thread(get)
        wait_for(lambda: len(memory._waiting) == len(waits), "it to queue")
        return ended

    large = wait("large", 2 * MIB)
    memory.give(taken.pop())
    small = wait("small", 1000)  # it would fit
    assert order == []
    memory.give(taken.pop())
    assert large() is None
    assert [size for size, _ in memory._waiting] == [1000]
    memory.give(taken.pop())
    assert small() is None
    assert order == ["large", "small"]


def test_spare_room_is_for_small_files_only() -> None:
    """Blocks of large files never get the spare room; when it is used up, a small file waits its turn."""
    memory = Memory(4 * MIB, MIB)
    taken = [memory.buffer(MIB) for _ in range(3)]
    waiting = in_thread(lambda: memory.give(memory.buffer(MIB)))
    with memory.held(MIB - 1000), memory.held(1000), memory.held(0):
        pass
    with memory.held(1000):
        late = in_thread(lambda: hold(memory, MIB))
        wait_for(lambda: len(memory._waiting) == 2, "both to wait")
        assert memory.free == 0
    for buffer in taken:
        memory.give(buffer)
    assert (waiting(), late()) == (None, None)
    assert memory.free + memory.spare == memory.limit


def hold(memory: Memory, size: int) -> None:
    with memory.held(size):
        pass

"""After SIGKILL at any point the next process sends what is missing, and again no more than was in flight."""

from base64 import b64decode
from pathlib import Path

from tests.endpoint.faults import Do, StallReply, StallSend
from tests.endpoint.request import Operation, Request
from tests.support.programs import wait_for
from tests.upload.shards import MIB, Shard, noise, shard

SIZE, BLOCK, MEMORY = 8 * MIB, MIB // 8, MIB  # blocks that are not divided, however slow the line is
WINDOW = 4  # blocks of one file in flight: half of those that the memory holds, and what a line has at least
PUTS = (Operation.PUT_BLOB, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST)


def test_a_large_file_whose_process_is_killed_again_and_again(tmp_path: Path) -> None:
    """Killed at 20, 50, 80 and 99%, in mid-block: what is sent in vain stays below NFS_WATCH_MEMORY."""
    content = noise(SIZE)
    with shard(tmp_path, block_size=BLOCK, memory=MEMORY) as one:
        one.session()
        one.arrive("run/a.bin", content)
        confirmed: set[str] = set()
        for percent in (20, 50, 80, 99):
            target = SIZE // BLOCK * percent // 100
            stall = StallSend(600, after_bytes=BLOCK // 2)
            one.endpoint.faults.add(stall, Operation.PUT_BLOCK, skip=target - len(confirmed), times=100)
            halves = min(WINDOW, SIZE // BLOCK - target)
            wait_for(lambda: half_way(one, target - len(confirmed), halves), f"{percent}%")  # noqa: B023
            one.server.kill()
            sent = one.endpoint.log.of(Operation.PUT_BLOCK)
            fresh = {request.block for request in sent if request.status == 201} - confirmed
            in_vain = sum(request.received for request in sent) - len(fresh) * BLOCK
            print(f"killed at {percent}%: {in_vain / MIB:.2f} MiB of {SIZE / MIB:.0f} were sent in vain")
            assert 0 < in_vain < MEMORY
            assert in_vain <= WINDOW * BLOCK
            confirmed |= fresh
            one.endpoint.faults.clear()
            one.endpoint.log.clear()
            one.server.start()
        one.stored("run/a.bin")
        assert one.endpoint.log.received(Operation.PUT_BLOCK) == SIZE - len(confirmed) * BLOCK
        assert one.content("run/a.bin") == content
        assert one.events("upload.resumed")[-1]["skipped"] == len(confirmed)


def half_way(one: Shard, confirmed: int, halves: int) -> bool:
    """Tell whether so many blocks are confirmed since the start, and all others that may be in flight are stuck midway.

    A block that overtook a stuck one keeps its place in the window.
    """
    sent = one.endpoint.log.of(Operation.PUT_BLOCK)
    whole = [request for request in sent if request.status == 201]
    stuck = [request for request in sent if not request.status and request.received >= BLOCK // 2]
    ahead = sum(index(request) > min(map(index, stuck), default=0) for request in whole)
    return len(whole) == confirmed and len(stuck) == len(sent) - len(whole) > 0 and len(stuck) + ahead >= halves


def index(request: Request) -> int:
    return int.from_bytes(b64decode(request.block)[:4], "big")


def test_killed_while_the_commit_is_made(tmp_path: Path) -> None:
    """The blob is there and the file still `.processing`: it is completed without sending a byte."""
    content = noise(8 * MIB)
    with shard(tmp_path, block_size=BLOCK, memory=MEMORY, retention=3600) as one:
        one.endpoint.faults.add(Do(lambda _: one.server.kill()), Operation.PUT_BLOCK_LIST)
        one.session()
        one.arrive("run/a.bin", content)
        one.stored("run/a.bin")
        assert one.left() == ["a.bin.processing"]
        one.endpoint.log.clear()
        one.server.start()
        wait_for(lambda: one.left() == ["a.bin.completed"], "completion")
        assert not any(one.endpoint.log.of(operation) for operation in PUTS)
        assert one.events("upload.present")


def test_killed_while_small_files_are_under_way(tmp_path: Path) -> None:
    """The claims that were left are finished, and files that are in the store are not sent again."""
    files = {f"run/{number}.bin": noise(1000 + number) for number in range(60)}
    with shard(tmp_path, connections=8, retention=3600) as one:
        one.endpoint.faults.latency = 0.05
        one.endpoint.faults.add(StallReply(600), Operation.PUT_BLOB, skip=30, times=3)
        one.session()
        for name, content in files.items():
            one.arrive(name, content)
        wait_for(lambda: len(one.blobs()) >= 33, "half of them", interval=0.001)
        one.server.kill()
        stored = one.blobs()
        processing = [name for name in one.left() if name.endswith(".processing")]
        one.endpoint.log.clear()
        one.server.start()
        one.stored(*files)
        wait_for(lambda: all(name.endswith(".completed") for name in one.left()), "completion")
        assert processing
        again = {request.blob for request in one.endpoint.log.of(Operation.PUT_BLOB)} & stored
        assert not again, "sent although it was in the store"
        assert {name: one.content(name) for name in files} == files

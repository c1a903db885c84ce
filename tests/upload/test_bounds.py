"""Limits that hold whatever the work: memory, requests in flight, the upload rate."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.endpoint.faults import Do
from tests.endpoint.request import Operation, Request
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Store
from tests.support.clock import Clock
from tests.upload.sending import BLOCK, in_thread, sending
from tests.upload.shards import MIB, noise, shard
from uploader.blob import rate_limit

MEMORY = 128 * MIB  # NFS_WATCH_MEMORY's default


@pytest.mark.timeout(900)
def test_four_files_of_a_gigabyte_in_bounded_memory(tmp_path: Path) -> None:
    """The peak of the whole process stays below NFS_WATCH_MEMORY + 100 MiB with the default settings.

    Only the MD5 of the whole file is switched off: it holds no memory and costs most of the time.
    """
    with shard(tmp_path, keep_bytes=False, content_md5=False) as one:
        one.session()
        for number in range(4):
            one.arrive(f"run/{number}.bin", 1024 * MIB)
        one.stored(*(f"run/{number}.bin" for number in range(4)), timeout=800)
        peak = one.peak()
        print(f"peak RSS with four 1 GiB files: {peak / MIB:.0f} MiB")
        assert one.received() == 4096 * MIB
        assert peak < MEMORY + 100 * MIB


class Crowd:
    """Holds requests until a given number of them is there, then lets all go: they are surely in flight together."""

    def __init__(self, expected: int) -> None:
        self._barrier = threading.Barrier(expected, timeout=100)
        self._full = threading.Event()

    def hold(self, _: Store) -> None:
        if not self._full.is_set():
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait()
            self._full.set()


def test_content_in_flight_is_bounded_by_memory_and_requests_by_connections(tmp_path: Path) -> None:
    """While the store holds its answers, the uploads use all six connections, and never a seventh."""
    with Endpoint() as endpoint, sending(tmp_path, endpoint, memory=32 * BLOCK, connections=6) as engine:
        endpoint.faults.latency = 0.02
        endpoint.faults.add(Do(Crowd(6).hold), Operation.PUT_BLOCK, times=6)
        paths = [engine.file(40 * BLOCK, f"{number}.bin") for number in range(5)]
        ended = [in_thread(lambda path=path: engine.upload(path, f"run/{path.name}")) for path in paths]  # type: ignore[misc]
        assert [end() for end in ended] == [None] * 5
        sent = endpoint.log.of(Operation.PUT_BLOCK)
        assert len(sent) == 200
        assert most_at_once(sent) == 6


def most_at_once(requests: list[Request]) -> int:
    """Return how many requests were open at the same time, at most."""
    moments = [(request.started, 1) for request in requests] + [(request.ended, -1) for request in requests]
    now = most = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def test_small_files_use_all_connections_and_no_more(tmp_path: Path) -> None:
    """Small files reach full speed, and the store never has more requests open than NFS_WATCH_CONNECTIONS."""
    with shard(tmp_path, connections=12) as one:
        one.endpoint.faults.latency = 0.1
        one.endpoint.faults.add(Do(Crowd(12).hold), Operation.PUT_BLOB, times=12)
        for number in range(100):
            one.arrive(f"run/{number}.bin", noise(1000))
        one.session()
        one.stored(*(f"run/{number}.bin" for number in range(100)))
        assert most_at_once(one.endpoint.log.of(Operation.PUT_BLOB)) == 12


def test_small_files_in_flight_are_bounded_by_memory(tmp_path: Path) -> None:
    """With 12 connections and memory for five files of one block, five are in flight."""
    with shard(tmp_path, connections=12, block_size=MIB, memory=5 * MIB) as one:
        one.endpoint.faults.latency = 0.1
        one.endpoint.faults.add(Do(Crowd(5).hold), Operation.PUT_BLOB, times=5)
        for number in range(30):
            one.arrive(f"run/{number}.bin", noise(MIB))
        one.session()
        one.stored(*(f"run/{number}.bin" for number in range(30)))
        assert most_at_once(one.endpoint.log.of(Operation.PUT_BLOB)) == 5


def test_the_upload_rate_is_exact_however_the_pieces_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over more than 10 s, with large and small pieces, the rate is within 1% of the setting plus its burst."""
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    limit = rate_limit.RateLimit(8_000_000)
    sent, began = 0, clock.now
    for number in range(10_000):
        size = (rate_limit.CHUNK, 20_000, 7)[number % 3]
        limit.wait(size)
        sent += size
        if number == 5000:
            clock.now += 60  # a pause gives no more than the burst
            sent, began = 0, clock.now
    assert clock.now - began > 10
    assert abs(sent / (clock.now - began) - limit.limit) < 0.01 * limit.limit + rate_limit.BURST * limit.limit / 10


def test_the_upload_rate_holds_and_small_files_go_along(tmp_path: Path) -> None:
    """The process sends no faster than the limit, and 500 small files do not wait for two large ones."""
    limit = 8_000_000
    with shard(tmp_path, keep_bytes=False, max_upload_rate=limit) as one:
        for number in range(2):
            one.arrive(f"run/large-{number}.bin", 1024 * MIB)
        small = [f"run/{number}.bin" for number in range(500)]
        for name in small:
            one.arrive(name, 20_000)
        began = time.monotonic()
        one.session()
        one.stored(*small)
        blobs, sent = one.blobs(), one.received()
        took = time.monotonic() - began
        print(f"{sent / took / 1e6:.2f} MB/s")
        assert blobs == set(small)
        assert len({request.blob for request in one.endpoint.log.of(Operation.PUT_BLOCK)}) == 2, "large ones went too"
        assert sent < limit * (took + 1)

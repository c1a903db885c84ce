"""Limits that hold whatever the work: memory, requests in flight, the upload rate."""

import time
from pathlib import Path

from tests.endpoint.request import Operation, Request
from tests.endpoint.server import Endpoint
from tests.engine.sending import BLOCK, in_thread, sending
from tests.engine.shards import MIB, noise, shard
from tests.programs import wait_for

MEMORY = 128 * MIB  # NFS_WATCH_MEMORY's default


def test_four_files_of_a_gigabyte_in_bounded_memory(tmp_path: Path) -> None:
    """The peak of the whole process stays below NFS_WATCH_MEMORY + 100 MiB, with the default settings.

    But without the MD5 of the whole, which holds no memory and costs most of the time.
    """
    with shard(tmp_path, keep_bytes=False, content_md5=False) as one:
        one.session()
        for number in range(4):
            one.arrive(f"run/{number}.bin", 1024 * MIB)
        one.stored(*(f"run/{number}.bin" for number in range(4)), timeout=120)
        peak = one.peak()
        print(f"peak RSS with four 1 GiB files: {peak / MIB:.0f} MiB")
        assert one.received() == 4096 * MIB
        assert peak < MEMORY + 100 * MIB


def test_content_in_flight_is_bounded_by_memory_and_requests_by_connections(tmp_path: Path) -> None:
    """On a line that stands still: what is offered fills the bounds, and never more."""
    with Endpoint() as endpoint, sending(tmp_path, endpoint, memory=32 * BLOCK, connections=6) as engine:
        endpoint.faults.latency = 0.02
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
    with shard(tmp_path, connections=12) as one:
        one.endpoint.faults.latency = 0.1
        for number in range(100):
            one.arrive(f"run/{number}.bin", noise(1000))
        one.session()
        one.stored(*(f"run/{number}.bin" for number in range(100)))
        assert most_at_once(one.endpoint.log.of(Operation.PUT_BLOB)) == 12


def test_small_files_in_flight_are_bounded_by_memory(tmp_path: Path) -> None:
    """12 connections and files of one block: as many as the memory holds."""
    with shard(tmp_path, connections=12, block_size=MIB, memory=5 * MIB) as one:
        one.endpoint.faults.latency = 0.1
        for number in range(30):
            one.arrive(f"run/{number}.bin", noise(MIB))
        one.session()
        one.stored(*(f"run/{number}.bin" for number in range(30)))
        assert most_at_once(one.endpoint.log.of(Operation.PUT_BLOB)) == 5


def test_the_upload_rate_is_steady(tmp_path: Path) -> None:
    """Within 10% of NFS_WATCH_MAX_UPLOAD_RATE over 10 s, large and small files together."""
    rate = 8_000_000
    with shard(tmp_path, keep_bytes=False, max_upload_rate=rate) as one:
        for number in range(2):
            one.arrive(f"run/large-{number}.bin", 1024 * MIB)
        for number in range(500):
            one.arrive(f"run/{number}.bin", 20_000)
        one.session()
        wait_for(lambda: one.received() > rate, "the first second's bytes")
        began, before = time.monotonic(), one.received()
        seconds: list[int] = []
        for second in range(1, 11):
            time.sleep(max(0.0, began + second - time.monotonic()))
            seconds.append(one.received() - before - sum(seconds))
        took = time.monotonic() - began
        print(f"{sum(seconds) / took / 1e6:.2f} MB/s, each second: {[round(each / 1e6, 2) for each in seconds]}")
        assert abs(sum(seconds) / took - rate) < 0.1 * rate
        assert len(one.blobs()) > 100, "small files go along with the large ones"

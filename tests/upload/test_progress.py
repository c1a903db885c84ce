"""What was handed to the socket is seen at once and counted once, and an upload can be given up on the way."""

import threading
from itertools import accumulate
from pathlib import Path

import pytest

from tests.endpoint.faults import Fault, Hold, Refuse, Reset, StallSend
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.support.programs import wait_for
from tests.upload.sending import MIB, Sending, in_thread, sending
from uploader.errors import Cancelled, StoreRefused
from uploader.upload.block import SMALLEST
from uploader.upload.flight import LEAST, Flight
from uploader.upload.line import Line

PUTS = (Operation.PUT_BLOB, Operation.PUT_BLOCK)
SIZES = (1000, MIB, 3 * MIB + 7)  # one piece, one body of many pieces, blocks
SLOW, FAST = (lambda *_: None), (lambda line, _: setattr(line, "rate", 1e9))


@pytest.fixture
def engine(tmp_path: Path) -> Sending:  # type: ignore[misc]
    with sending(tmp_path, block_size=MIB, memory=16 * MIB) as made:
        yield made


@pytest.mark.parametrize("size", SIZES)
def test_what_is_under_way_is_seen_before_it_is_confirmed(engine: Sending, size: int) -> None:
    """While the store holds its answer, all that it got counts, and no more; at the end all of the file does."""
    gate = threading.Event()
    engine.endpoint.faults.add(Hold(gate), *PUTS, times=1000)
    path = engine.file(size)
    ended = in_thread(lambda: engine.upload(path))
    got = min(size, MIB if size <= MIB else LEAST)
    wait_for(lambda: sum(engine.sent) == received(engine) == got, "what may be under way to count")
    gate.set()
    assert ended() is None
    assert sum(engine.sent) == size
    assert max(accumulate(engine.sent)) == size


def received(engine: Sending) -> int:
    return sum(engine.endpoint.log.received(operation) for operation in PUTS)


def test_progress_is_seen_within_a_block(engine: Sending) -> None:
    """The store has read a part of the only block and reads no further: a part of it counts."""
    engine.endpoint.faults.add(StallSend(600), Operation.PUT_BLOB)
    path = engine.file(MIB)
    ended = in_thread(lambda: engine.upload(path))
    wait_for(lambda: sum(engine.sent) > 0, "a part of it to count")
    assert sum(engine.sent) < MIB
    engine.endpoint.closing.set()
    assert ended() is None
    assert sum(engine.sent) == MIB


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fault", [Refuse(503, retry_after=0.01), Reset(), Reset(after_effect=True)])
def test_what_is_sent_again_counts_once(engine: Sending, size: int, fault: Fault) -> None:
    """A try that fails takes back what it has handed over: the status never shows more than the file has."""
    planned = engine.endpoint.faults.add(fault, *PUTS, times=2)
    engine.upload(engine.file(size))
    assert planned.hits == 2
    assert sum(engine.sent) == size
    assert min(engine.sent) < 0 or fault == Reset(), "it may break before anything is handed over"
    assert all(0 <= shown <= size for shown in accumulate(engine.sent))


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_refused_counts_only_what_is_there(engine: Sending, size: int) -> None:
    """Confirmed blocks stay for the next try; the refused body does not count."""
    engine.endpoint.faults.add(Refuse(403, "AuthenticationFailed"), *PUTS, skip=1 if size > MIB else 0, times=1000)
    with pytest.raises(StoreRefused):
        engine.upload(engine.file(size))
    assert sum(engine.sent) == (SMALLEST if size > MIB else 0)


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
def test_a_stop_at_once_does_not_wait_for_a_body(engine: Sending, size: int) -> None:
    """The session ends when the first piece is handed over: no body is sent to its end, and the next file goes through."""
    path = engine.file(size)

    def sent(size: int) -> None:
        engine.sent.append(size)
        engine.cancelled.set()

    with pytest.raises(Cancelled):
        engine.upload(path, sent=sent)
    assert sum(engine.sent) == 0
    wait_for(lambda: engine.count(*PUTS), "the request that was given up")
    requests = [request for operation in PUTS for request in engine.endpoint.log.of(operation)]
    assert not any(request.status for request in requests)
    assert all(request.received < request.length for request in requests)
    engine.cancelled.clear()
    engine.upload(path)
    assert engine.holds(path)


def test_a_body_that_was_handed_over_whole_is_waited_for(engine: Sending) -> None:
    """The session ends when all of a small file is on its way: the answer is near, and the file not given back."""
    path = engine.file(MIB)

    def sent(size: int) -> None:
        engine.sent.append(size)
        if sum(engine.sent) == MIB:
            engine.cancelled.set()

    engine.upload(path, sent=sent)
    assert engine.holds(path)


def test_four_files_share_what_may_be_under_way(engine: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a line that takes little, two small blocks are under way, and each file waits for one turn, in their order."""
    monkeypatch.setattr(Line, "confirmed", SLOW)
    gate = threading.Event()
    engine.endpoint.faults.add(Hold(gate), Operation.PUT_BLOCK)
    paths = [engine.file(5 * MIB + number, f"{number}.bin") for number in range(4)]
    flight: Flight = engine.transfer._pools.flight
    ended = []
    for number, path in enumerate(paths):
        ended.append(in_thread(lambda path=path: engine.upload(path, f"run/{path.name}")))  # type: ignore[misc]
        if not number:
            engine.endpoint.faults.add(Hold(gate), Operation.PUT_BLOCK)
            wait_for(lambda: len(flight._waiting) == 1, "the first file to use all")
    wait_for(lambda: len(flight._waiting) == len(paths), "each file to wait for its turn")
    assert flight.size == LEAST
    assert len(engine.endpoint.log.of(Operation.PUT_BLOCK)) <= LEAST // SMALLEST
    gate.set()
    assert [end() for end in ended] == [None] * len(paths)
    assert all(engine.holds(path, f"run/{path.name}") for path in paths)


@pytest.mark.parametrize(("first", "then"), [(SLOW, FAST), (FAST, SLOW)])
def test_a_killed_upload_goes_on_though_the_line_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: object, then: object
) -> None:
    """The next process wants other blocks: it meets those that are there, and sends only the rest."""
    with Endpoint() as endpoint, sending(tmp_path, endpoint, block_size=MIB, memory=16 * MIB) as one:
        path = one.file(20 * MIB + 7)
        monkeypatch.setattr(Line, "confirmed", first)
        endpoint.faults.add(Refuse(403, "AuthenticationFailed"), Operation.PUT_BLOCK, skip=8, times=1)
        with pytest.raises(StoreRefused):
            one.upload(path)
        there = sum(one.store.blocks("run/a.bin").uncommitted.values())
        assert there > LEAST
        endpoint.log.clear()
        monkeypatch.setattr(Line, "confirmed", then)
        with sending(tmp_path, endpoint, block_size=MIB, memory=16 * MIB) as two:
            two.upload(path, retried=True)
            assert two.holds(path)
        assert endpoint.log.received(Operation.PUT_BLOCK) == 20 * MIB + 7 - there
        sizes = {request.length for request in endpoint.log.of(Operation.PUT_BLOCK)}
        assert max(sizes) == (MIB if then is FAST else SMALLEST)

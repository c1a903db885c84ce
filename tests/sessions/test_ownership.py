"""Sessions that change shards: real shards and a router, a verifying blob endpoint, replicas that a person scales."""

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import orjson
import pytest
import trustme

from tests.endpoint.faults import Hold
from tests.endpoint.request import Operation, Request
from tests.endpoint.server import Endpoint
from tests.kubernetes.api import Api, spec
from tests.kubernetes.pods import Pods, content
from tests.need import need
from tests.support.programs import Server, wait_for
from uploader.telemetry import names

MIB = 1024 * 1024
MEMORY = 16 * MIB
LARGE = 40 * MIB + 12_345


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        yield server


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """The gate that large files wait behind, see running()."""
    opened = threading.Event()
    yield opened
    opened.set()


@pytest.fixture
def pods(tmp_path: Path, authority: trustme.CA, endpoint: Endpoint) -> Iterator[Pods]:
    need("unshare")
    with Api(authority) as api:
        found = Pods(tmp_path, api, endpoint.connection_string, block_size=MIB, memory=MEMORY)
        try:
            found.scale(1)
            found.router.up()
            yield found
        finally:
            found.kill()


def counted(server: Server) -> int | None:
    """Return the number of shards that a program learnt last; None while the API refuses it an answer."""
    said = [orjson.loads(line) for line in server.log().splitlines() if '"replicas.' in line]
    return said[-1].get("count") if said and said[-1]["event"] == names.REPLICAS_KNOWN else None


def scaled(pods: Pods, count: int) -> None:
    """Scale, and wait until every program knows."""
    pods.scale(count)

    def known() -> bool:
        pods.router.answers("/readyz")  # then it asks
        return all(counted(server) == count for server in [pods.router, *pods.shards.values()])

    wait_for(known, f"all to know of {count} shards", interval=0.2)


def finished(pods: Pods, endpoint: Endpoint, files: dict[str, int], timeout: float = 240) -> None:
    """Wait until nothing is left on the share; then the blobs must be exactly what was written."""
    wait_for(lambda: not pods.left(), "every file to be uploaded and swept", timeout, 0.1)
    blobs = endpoint.store.blobs("uploads")
    assert sorted(name for name, blob in blobs.items() if blob.committed is not None) == sorted(files)
    assert [name for name, size in files.items() if blobs[name].content != content(name, size)] == []


def taken(endpoint: Endpoint) -> dict[tuple[str, str], list[Request]]:
    """Return the requests with which the store took each block; a whole small blob counts as one block."""
    found: dict[tuple[str, str], list[Request]] = {}
    for request in endpoint.log.of(Operation.PUT_BLOCK) + endpoint.log.of(Operation.PUT_BLOB):
        if request.status == 201:
            found.setdefault((request.blob, request.block), []).append(request)
    return found


def sent_in_vain(endpoint: Endpoint, deaths: list[float]) -> list[tuple[str, str]]:
    """List what was sent again after a death before which the store had it.

    What the store had not finished taking was in flight and may be sent again: a dead client's last blocks still lie
    in the sockets' buffers for a while.
    """
    return [
        key
        for key, puts in taken(endpoint).items()
        for first, again in pairwise(puts)
        if any(first.ended < death < again.started for death in deaths)
    ]


def staged(endpoint: Endpoint, blob: str) -> int:
    return sum(request.status == 201 for request in endpoint.log.of(Operation.PUT_BLOCK, blob))


class Producer:
    """Writes small files into sessions in turn, until it is told to end."""

    def __init__(self, pods: Pods, *sessions: str, pause: float = 0.02) -> None:
        self.files: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(pods, sessions, pause))
        self._thread.start()

    def _run(self, pods: Pods, sessions: tuple[str, ...], pause: float) -> None:
        number = 0
        while not self._end.wait(pause):
            for session in sessions:
                size = number * 313 % 50_000
                self.files[pods.write(session, f"{number % 5}/{number:05}.bin", size)] = size
            number += 1

    def end(self) -> dict[str, int]:
        self._end.set()
        self._thread.join()
        return self.files


def test_scaling_up_moves_nothing_and_new_sessions_use_the_new_shard(pods: Pods, endpoint: Endpoint) -> None:
    """Whoever scales up pays nothing for it: running sessions stay where they are, and no byte is sent twice."""
    assert pods.start("a") == 0
    producer = Producer(pods, "a")
    try:
        pods.scale(2)
        wait_for(
            lambda: pods.post("start", session="b").status_code == 201, "the router to learn of shard 1", interval=0.5
        )
        pods.settles({"a": 0, "b": 1})
        full = pods.post("start", session="c")
        assert (full.status_code, full.json()["code"]) == (409, "shard-full")
        scaled(pods, 3)  # so every shard has looked at its sessions by a count of 2
        pods.settles({"a": 0, "b": 1})
    finally:
        files = producer.end()
    files[pods.write("b", "x.bin", 1000)] = 1000
    finished(pods, endpoint, files)
    assert {len(puts) for puts in taken(endpoint).values()} == {1}, "nothing is sent twice"


def is_of(blob: str, request: Request) -> bool:
    return request.blob == blob


def running(pods: Pods, endpoint: Endpoint, gate: threading.Event, *sessions: str) -> dict[str, int]:
    """Start sessions, each with a large file of which the store has four blocks and takes more when the gate opens."""
    files = {}
    for session in sessions:
        pods.start(session)
        name = f"{session}/deep/large.bin"
        endpoint.faults.add(Hold(gate), Operation.PUT_BLOCK, skip=4, times=1_000_000, when=partial(is_of, name))
        files[pods.write(session, "deep/large.bin", LARGE)] = LARGE
    for name in files:
        wait_for(lambda n=name: staged(endpoint, n) >= 4, f"blocks of {name}")
    return files


def test_scaling_down_hands_over_claims_and_sends_no_block_twice(
    pods: Pods, endpoint: Endpoint, gate: threading.Event
) -> None:
    """Another shard adopts the sessions and continues their large files from the blocks in the store."""
    scaled(pods, 3)
    files = running(pods, endpoint, gate, "a", "b", "c")
    wait_for(lambda: sorted(pods.where().values()) == [0, 1, 2], "a session on each shard")
    pods.scale(1)
    deaths = [time.monotonic()]
    assert [name for name in pods.left() if name.endswith(".processing")]
    for session in ("a", "b", "c"):
        files[pods.write(session, "late.bin", 777)] = 777
    pods.settles({"a": 0, "b": 0, "c": 0})
    gate.set()
    finished(pods, endpoint, files)
    assert sent_in_vain(endpoint, deaths) == []


def test_down_to_zero_and_up_again(pods: Pods, endpoint: Endpoint, gate: threading.Event) -> None:
    """Without shards a start gets 503; sessions go on where they were, with the files that came in between."""
    scaled(pods, 2)
    files = running(pods, endpoint, gate, "a", "b")
    homes = wait_for(lambda: len(found := pods.where()) == 2 and found, "both sessions")
    pods.scale(0)
    deaths = [time.monotonic()]
    answer = wait_for(lambda: (got := pods.post("start", session="x")).status_code == 503 and got, "503", interval=0.2)
    assert int(answer.headers["Retry-After"]) >= 1
    for session in ("a", "b"):
        files[pods.write(session, "night.bin", 60_000)] = 60_000
    gate.set()
    pods.scale(2)
    pods.settles(homes)
    finished(pods, endpoint, files)
    assert sent_in_vain(endpoint, deaths) == []


def test_a_shard_killed_again_and_again_sends_again_at_most_what_was_in_flight(
    pods: Pods, endpoint: Endpoint, gate: threading.Event
) -> None:
    """Five kills under load cost less than NFS_WATCH_MEMORY of repeated traffic each, and no file."""
    scaled(pods, 2)
    files = running(pods, endpoint, gate, "a", "b")
    gate.set()
    endpoint.faults.clear()
    endpoint.faults.throttle.rate = 8 * MIB
    producer = Producer(pods, "a", "b", pause=0.05)
    deaths: list[float] = []
    try:
        for number in range(5):
            victim = pods.shards[number % 2]
            goal = len(taken(endpoint)) + 3 + 2 * number
            wait_for(lambda goal=goal: len(taken(endpoint)) >= goal, "some more to be sent")
            victim.signal(signal.SIGKILL)
            victim.wait()
            deaths.append(time.monotonic())
            victim.up()
    finally:
        files |= producer.end()
    endpoint.faults.throttle.rate = 0
    finished(pods, endpoint, files)
    received = endpoint.log.received(Operation.PUT_BLOCK) + endpoint.log.received(Operation.PUT_BLOB)
    assert received <= sum(files.values()) + len(deaths) * MEMORY
    assert sent_in_vain(endpoint, deaths) == []


def test_two_shards_that_both_believe_they_own_a_session_harm_nothing(
    pods: Pods, endpoint: Endpoint, gate: threading.Event
) -> None:
    """A node is cut off and its pod replaced: two shards of one ordinal share a session for a while (I9)."""
    files = running(pods, endpoint, gate, "a")
    first, twin = pods.shards[0], pods.pod(0, "127.0.3.0")
    twin.output = twin.output.with_name("twin.log")
    producer = Producer(pods, "a", pause=0.01)
    try:
        twin.up()
        before = first.log().count(names.FILE_COMPLETED)
        wait_for(lambda: names.FILE_COMPLETED in twin.log(), "the twin to complete files of the session")
        gate.set()
        wait_for(lambda: first.log().count(names.FILE_COMPLETED) > before, "so does the first one")
    finally:
        files |= producer.end()
    try:
        for number in range(3):
            files[pods.write("a", f"again-{number}.bin", 5 * MIB)] = 5 * MIB
        finished(pods, endpoint, files)
        assert twin.answers("/livez")
        assert pods.shards[0].answers("/livez")
    finally:
        twin.kill()


def test_a_shard_that_lingers_after_scaling_down_lets_go(pods: Pods, endpoint: Endpoint, gate: threading.Event) -> None:
    """Its pod is still Terminating while another shard adopts its session: it must stop, and not crash."""
    scaled(pods, 2)
    files = running(pods, endpoint, gate, "a", "b")
    lingers = pods.shards[1]
    producer = Producer(pods, "a", "b", pause=0.05)
    try:
        pods.api.body = spec(1)
        pods.settles({"a": 0, "b": 0})
        gate.set()
        status = f"{lingers.url}/v1/watch/status"
        wait_for(lambda: httpx.get(status, timeout=10).json()["sessions"] == [], "the old shard to let go")
        enough = len(producer.files) + 20
        wait_for(lambda: len(producer.files) >= enough, "files that only one shard has to do with")
    finally:
        files |= producer.end()
    finished(pods, endpoint, files)
    assert lingers.answers("/livez"), "it has lost a session, not its mind"


def test_an_api_that_forbids_is_named_until_it_answers_and_forgotten_afterwards(pods: Pods, endpoint: Endpoint) -> None:
    """Before the first answer a start gets 503 with what is missing; afterwards the last count holds."""
    pods.api.status = 403
    pods.router.kill()
    pods.router.up("/livez")
    answer = pods.post("start", session="a")
    assert answer.status_code == 503
    assert "Role" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    pods.api.status = 200
    wait_for(lambda: pods.post("start", session="a").status_code == 201, "the router to ask again", interval=0.3)
    pods.api.status = 403
    wait_for(lambda: pods.router.answers("/readyz") and counted(pods.router) is None, "the router to be refused")
    wait_for(lambda: counted(pods.shards[0]) is None, "the shard to be refused")
    stopped = pods.post("stop", session="a", drain=False)
    assert stopped.status_code == 200, stopped.text
    wait_for(lambda: pods.where() == {}, "the session to be swept")
    files = {pods.write("b", "x.bin", 10): 10}
    assert pods.start("b") == 0
    finished(pods, endpoint, files)

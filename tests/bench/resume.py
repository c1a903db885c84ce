"""One large file whose client is killed half-way and started again: how much is sent, and whether the blob is right."""

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from tests.bench import report
from tests.bench.endpoint import SIGNATURE
from tests.bench.goals import AZCOPY, OURS, RCLONE, Goal
from tests.bench.row import Asked, Row
from tests.bench.work import MIB, Work
from tests.endpoint.operations import checksum
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Store
from tests.support.programs import Program, shard, wait_for

WORK = Work(
    "resume",
    "one 512 MiB file, the client killed with SIGKILL when half of it had arrived, then started again",
    1,
    512 * MIB,
    {},
    [],
    tls=False,
    quick={"length": 256 * MIB},
)
MEMORY = 128 * MIB  # NFS_WATCH_MEMORY's default
RATE = 200e6  # bytes per second: the same for all, and slow enough to be killed in the middle
LIMIT = 120  # seconds that a client may take
HEAD = f"""Plain http, to the endpoint that the tests use (tests/endpoint), which keeps blocks as the service does, verifies
checksums and counts what arrives, {RATE / 1e6:.0f} MB/s at most. nfs-watch is started again and nobody calls it; the others are
started by the command that is named. A client that starts from zero sends 1.50 times the file, and what was in flight when it was killed.
"""


@dataclass(frozen=True)
class Resumed:
    """Content that arrived in all, as a multiple of the file's size, and whether the blob equals the file."""

    sent: float
    right: bool


Client = Callable[[Path, Path, Endpoint], Resumed]


def measure(asked: Asked) -> list[str]:
    """Let each client take its turns; return the tables of medians and of the goal."""
    results: dict[str, Resumed] = {}
    with WORK.made(asked) as folder:
        (file,) = folder.iterdir()
        size = file.stat().st_size
        for name, client in CLIENTS.items():
            runs = [_run(client, file, asked.scratch) for _ in range(asked.repeats)]
            results[name] = Resumed(statistics.median(run.sent for run in runs), all(run.right for run in runs))
    return [HEAD, *_table(results), "", *_goal(results[OURS], size)]


def _table(results: Mapping[str, Resumed]) -> list[str]:
    lines = ["| client | sent in all, of the file's size | the blob is the file |", "|---|---:|---|"]
    return lines + [f"| {name} | {it.sent:.2f} | {'yes' if it.right else '**no**'} |" for name, it in results.items()]


def _goal(ours: Resumed, size: int) -> list[str]:
    """We send again at most the content that was held in memory."""
    most = 1 + MEMORY / size
    return report.goals([Goal("sent in all, of the file's size", lambda _: ours.sent, most=most)], {})


def _run(client: Client, file: Path, scratch: Path) -> Resumed:
    with Endpoint(Store(keep_bytes=False)) as endpoint:
        endpoint.store.create("uploads")
        endpoint.faults.throttle.rate = RATE
        return client(file, scratch, endpoint)


def _killed(program: Program, file: Path, endpoint: Endpoint) -> None:
    """Kill a started program when half of the file has arrived."""
    half = file.stat().st_size / 2
    wait_for(lambda: _arrived(endpoint) >= half, f"half of the file:\n{program.log()[-2000:]}", LIMIT, 0.002)
    program.kill()


def _arrived(endpoint: Endpoint) -> int:
    return sum(endpoint.log.received(operation) for operation in (Operation.PUT_BLOCK, Operation.PUT_BLOB))


def _result(file: Path, endpoint: Endpoint) -> Resumed:
    """Compare what is committed with the file, block by block."""
    blobs = list(endpoint.store.blobs("uploads").values())
    with file.open("rb") as source:
        blocks = [block for blob in blobs for block in blob.committed or []]
        right = all(checksum(source.read(block.length)) == block.crc64 for block in blocks) and not source.read(1)
    return Resumed(_arrived(endpoint) / file.stat().st_size, len(blobs) == 1 and right)


def _ours(file: Path, scratch: Path, endpoint: Endpoint) -> Resumed:
    """Start the same process again and make no call."""
    root = Path(tempfile.mkdtemp(dir=scratch))
    session = root / "run"
    session.mkdir()
    os.link(file, session / file.name)
    server = shard(root, root, endpoint.connection_string, retention=86400)
    try:
        server.up()
        answer = httpx.post(f"{server.url}/v1/watch/start", json={"session": "run"}, timeout=30, trust_env=False)
        assert answer.status_code == 201, answer.text
        _killed(server, file, endpoint)
        server.start()
        wait_for((session / f"{file.name}.completed").exists, "completion", LIMIT)
    finally:
        server.kill()
    return _result(file, endpoint)


def _azcopy(file: Path, scratch: Path, endpoint: Endpoint, *, resume: bool) -> Resumed:
    """With `resume` resume the killed job, else make the same copy again."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    env = {name: str(home) for name in ("AZCOPY_LOG_LOCATION", "AZCOPY_JOB_PLAN_LOCATION", "HOME")}
    target = f"{endpoint.url}/uploads/{file.name}?{SIGNATURE}"
    azcopy = os.environ["AZCOPY"]
    copy = Program([azcopy, "copy", str(file), target, "--from-to=LocalBlob"], home / "copy.log", env)
    copy.start()
    _killed(copy, file, endpoint)
    if resume:
        (plan,) = home.glob("*.steV*")
        job = plan.name.partition("--")[0]
        copy = Program([azcopy, "jobs", "resume", job, f"--destination-sas={SIGNATURE}"], home / "resume.log", env)
    return _finished(copy, file, endpoint)


def _rclone(file: Path, scratch: Path, endpoint: Endpoint) -> Resumed:
    """Run the same command again."""
    argv = ["rclone", "copyto", str(file), f":azureblob:uploads/{file.name}", "--config", ""]
    argv += ["--azureblob-sas-url", f"{endpoint.url}?{SIGNATURE}"]
    copy = Program(argv, scratch / "rclone.log")
    copy.start()
    _killed(copy, file, endpoint)
    return _finished(copy, file, endpoint)


def _finished(program: Program, file: Path, endpoint: Endpoint) -> Resumed:
    """Run a program to its end."""
    program.start()
    try:
        code = program.wait(LIMIT)
    finally:
        program.kill()
    assert code == 0, f"{program.argv[:3]} ended with {code}:\n{program.log()[-2000:]}"
    return _result(file, endpoint)


CLIENTS: dict[str, Client] = {
    OURS: _ours,
    f"{AZCOPY}, `azcopy jobs resume`": partial(_azcopy, resume=True),
    f"{AZCOPY}, the same `azcopy copy`": partial(_azcopy, resume=False),
    f"{RCLONE}, the same `rclone copyto`": _rclone,
}
ROW = Row(WORK.name, WORK.title, measure)

"""Killed at each step of docs/design.md's table ("What a crash leaves"), the next start comes to the same end."""

import gzip
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.crash_points.dying import STOPPING, Step, ended, start
from tests.endpoint.faults import Do
from tests.endpoint.request import Operation, Request
from tests.endpoint.server import Endpoint
from tests.soak.content import pieces
from tests.support.programs import shard, wait_for

BLOCK = 64 * 1024
SIZES = {"a/small.bin": 1000, "large.bin": 5 * BLOCK + 7, "empty.bin": 0}
FILES = {name: b"".join(pieces(name, 0, size)) for name, size in SIZES.items()}
RECEIPTS = "/.receipts/"
LONG = 200.0  # seconds; bounds a hang only
SETTLE = 6.0  # seconds, where a file has to settle
STEPS = [
    Step("destination's link", "before"),
    Step("destination's link", "after"),
    Step("record's link", "before"),
    Step("record's link", "after"),
    Step("claim", "before", 1),
    Step("claim", "after", 2),
    Step("put", "before", 1),
    Step("put", "after", 2),
    Step("stage", "after", 1),
    Step("stage", "before", 3),
    Step("stage", "after", 6),
    Step("commit", "before"),
    Step("commit", "after"),
    Step("complete", "before", 1),
    Step("complete", "after", 3),
    Step("receipts on disk", "before", 1),
    Step("receipts on disk", "after", 1),
    Step("deletion", "before", 1),
    Step("deletion", "after", 3),
    Step("receipts' commit", "before"),
    Step("receipts' commit", "after"),
    Step("result", "before"),
    Step("result", "after"),
    Step("journals' removal", "before"),
    Step("journals' removal", "after"),
    Step("record's change", "after", 1),
    Step("record's change", "before", 2),
    Step("record's change", "after", 2),
    Step("record's removal", "before"),
    Step("record's removal", "after"),
]
GIVING_BACK = [
    Step("link that gives back", "before"),
    Step("link that gives back", "after"),
    Step("unlink that gives back", "after"),
]

TAKING_BACK = [
    Step("link that gives back", "before"),
    Step("link that gives back", "after"),
    Step("deletion", "after"),
]
TAKING_UP = [
    Step("link that takes up again", "before"),
    Step("link that takes up again", "after"),
    Step("deletion", "after"),
]
CONFLICT = [
    Step("annotate", "after", 1),
    Step("snapshot", "before"),
    Step("snapshot", "after"),
    Step("annotate", "after", 2),
]


def lines_of(blob: bytes) -> list[dict[str, Any]]:
    """Return the receipts in a blob."""
    return [orjson.loads(line) for line in gzip.decompress(blob).splitlines()]


class Scene:
    """A share and an endpoint that outlive their shards."""

    def __init__(
        self,
        folder: Path,
        endpoint: Endpoint,
        files: Mapping[str, bytes] = FILES,
        settle: float = 0,
        retention: float = 0,
    ) -> None:
        self.folder = folder
        self.root = folder / "share"
        self.endpoint = endpoint
        self.server = shard(
            folder, self.root, endpoint.connection_string, block_size=BLOCK, memory=16 * BLOCK, connections=4,
            settle=settle, settle_empty=0.2, scan_interval=0.1, retention=retention, sweep_interval=0.1,
        )  # fmt: skip
        self.env = {name: value for name, value in self.server.env.items() if name.startswith(("NFS_WATCH_", "AZURE_"))}
        self.files = dict(files)
        self.earlier: list[str] = []  # names of files that were sent before others of these names
        for name, content in files.items():
            (self.root / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / "run" / name).write_bytes(content)

    def start(self, step: Step | None = None) -> ForkServerProcess:
        process = start(self.folder / "shard.log", self.env, step)
        wait_for(lambda: self._ready() or ended(process) is not None, "the shard to be ready", LONG)
        return process

    def _ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.server.url}/readyz", timeout=60, trust_env=False).status_code == 200
        return False

    def post(self, call: str, **fields: object) -> int:
        with suppress(httpx.HTTPError):
            url = f"{self.server.url}/v1/watch/{call}"
            return httpx.post(url, json={"session": "run", **fields}, timeout=LONG, trust_env=False).status_code
        return 0

    def killed(self, process: ForkServerProcess) -> float:
        try:
            wait_for(lambda: ended(process) is not None, "the process to come to this step", LONG)
        finally:
            process.kill()
        assert ended(process) == -signal.SIGKILL, self.log()
        return time.monotonic()

    def log(self) -> str:
        return (self.folder / "shard.log").read_text()[-3000:]

    def finish(self) -> None:
        """Start a new shard, let it drain, and check the share and the store."""
        process = self.start()
        try:
            assert self.post("start") in {201, 409}
            wait_for(
                lambda: self.post("stop") in {200, 202, 404} and not self.left(), f"the end: {self.left()}", LONG, 0.2
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.left()}\n{self.log()}") from None
        finally:
            process.kill()
            wait_for(lambda: ended(process) is not None, "the process to end", LONG)
        blobs = self.endpoint.store.blobs("uploads")
        assert {name: blob.content for name, blob in blobs.items() if RECEIPTS not in name} == {
            f"run/{name}": content for name, content in self.files.items()
        }
        self.receipted()

    def receipted(self) -> None:
        """Each file that left the share has one receipt in the store, and the result counts it once.

        The dead process's session may have ended before this one started it again: then its receipts are a blob apart.
        Started again after the sealing and before the journals went, it goes on with them, so that its own blob holds
        them all: then the other blob is part of this one, and no result counts from both.
        """
        result = orjson.loads((self.root / ".nfs-watch/ended/run.json").read_bytes())
        blobs = self.endpoint.store.blobs("uploads")
        packed = {name: lines_of(blob.content) for name, blob in blobs.items() if RECEIPTS in name}
        keys = {name: [(line["path"], line["inode"], line["mtime"]) for line in ours] for name, ours in packed.items()}
        assert all(len(set(ours)) == len(ours) for ours in keys.values())
        newest = set(keys.get(result["receipts"], []))
        assert all(set(ours) <= newest or not set(ours) & newest for ours in keys.values())
        lines = [line for ours in packed.values() for line in ours]
        once = {one for ours in keys.values() for one in ours}
        assert sorted(path for path, _, _ in once) == sorted([*self.files, *self.earlier])
        there = {(line["blob"], line["size"], line["etag"]) for line in lines}
        for name, content in self.files.items():
            assert (f"run/{name}", len(content), blobs[f"run/{name}"].etag) in there
        replaced = len(self.earlier)  # the next of its name took its place
        assert result["files"] == {"sent": len(newest), "replaced": replaced, "failed": 0, "left_behind": 0}
        assert result["bytes"] == sum(line["size"] for line in packed.get(result["receipts"], []))
        assert not (self.root / ".nfs-watch/receipts/run").exists()

    def left(self) -> list[str]:
        records = list((self.root / ".nfs-watch/sessions").iterdir())
        files = [path for path in (self.root / "run").rglob("*") if path.is_file()]
        return [str(path.relative_to(self.root)) for path in [*records, *files]]

    def sent_in_vain(self, death: float) -> list[str]:
        """List the blocks and blobs that the store had before the death and that were sent once more."""
        taken: dict[tuple[str, str], list[Request]] = {}
        for request in self.endpoint.log.of(Operation.PUT_BLOCK) + self.endpoint.log.of(Operation.PUT_BLOB):
            if request.status == 201 and RECEIPTS not in request.blob:
                taken.setdefault((request.blob, request.block), []).append(request)
        return [
            f"{blob} {block}"
            for (blob, block), puts in taken.items()
            for first, again in pairwise(puts)
            if first.ended < death < again.started and first.length
        ]


def die_while_draining(scene: Scene, step: Step) -> None:
    process = scene.start(step)
    scene.post("start")
    scene.post("stop", drain=True)
    death = scene.killed(process)
    scene.finish()
    assert scene.sent_in_vain(death) == []


def die_while_giving_back(scene: Scene, step: Step) -> None:
    """Kill it while it gives back. No block is confirmed before the stop, so that an upload is there to give back."""
    stopping = scene.folder / STOPPING
    hold = Do(lambda _: wait_for(stopping.exists, "the stop", LONG))
    stalled = scene.endpoint.faults.add(hold, Operation.PUT_BLOCK, times=100)
    process = scene.start(step)
    scene.post("start")
    wait_for(lambda: stalled.hits or ended(process) is not None, "blocks under way")
    scene.post("stop", drain=False)
    death = scene.killed(process)
    scene.endpoint.faults.clear()
    scene.finish()
    assert scene.sent_in_vain(death) == []


def die_while_taking_back(scene: Scene, step: Step, successor: bytes = b"") -> None:
    """A file is written to after its commit, and perhaps the next of its name has come."""
    process = scene.start(Step("complete", "after", 1))
    scene.post("start")
    scene.killed(process)
    (path,) = [scene.root / "run" / name for name in scene.files]
    with path.with_name(path.name + ".completed").open("ab") as writer:
        writer.write(b" and end")
    changed = scene.files[path.name] + b" and end"
    scene.files[path.name] = successor or changed
    if successor:
        scene.earlier.append(path.name)
        path.with_name(".arriving").write_bytes(successor)
        path.with_name(".arriving").rename(path)
    scene.killed(scene.start(step))
    scene.finish()
    puts = [one.length for one in scene.endpoint.log.of(Operation.PUT_BLOB) if one.status == 201]
    assert puts[1:] == [len(changed), len(successor)][: 1 + bool(successor)]


def die_while_taking_up(scene: Scene, step: Step) -> None:
    die_while_taking_back(scene, step, b"the next of its name")


@pytest.mark.parametrize("size", [1000, 2 * BLOCK], ids=["small", "large"])
@pytest.mark.parametrize(
    "step",
    [*CONFLICT, (Step("put", "before"), Step("commit", "before")), (Step("put", "after"), Step("commit", "after"))],
    ids=lambda one: str(one[0] if isinstance(one, tuple) else one),
)
def test_killed_in_a_conflict_it_leaves_one_snapshot_of_the_old_content(
    tmp_path: Path, step: Step | tuple[Step, Step], size: int
) -> None:
    """The next process finds what was kept, keeps nothing twice, and nothing is lost."""
    first, second = b"1" * size, b"2" * size
    if isinstance(step, tuple):
        # the first Put Blob of a name that is taken changes nothing
        step = replace(step[0], number=2) if size <= BLOCK else step[1]
    with Endpoint() as endpoint:
        scene = Scene(tmp_path, endpoint, {"x.bin": first})
        scene.finish()
        scene.earlier.append("x.bin")  # it has its receipt in the session that has ended
        scene.files["x.bin"] = second
        (scene.root / "run").mkdir(exist_ok=True)
        (scene.root / "run/x.bin").write_bytes(second)
        process = scene.start(step)
        scene.post("start")
        scene.killed(process)
        scene.finish()
        assert list(endpoint.store.kept("uploads", "run/x.bin").values()) == [first]


@pytest.mark.parametrize(
    "steps",
    [
        [Step("receipts on disk", "after")],
        [Step("deletion", "before")],
        [
            Step("deletion", "before"),
            Step("receipts on disk", "before"),
        ],  # the line by which the receipt counts no more
        [Step("deletion", "before"), Step("receipts on disk", "after")],
        [Step("deletion", "before"), Step("link that gives back", "after")],
    ],
    ids=lambda steps: ", ".join(map(str, steps)),
)
def test_killed_between_its_receipt_and_its_deletion_a_file_that_is_written_to_counts_once(
    tmp_path: Path, steps: list[Step]
) -> None:
    """Nobody deleted what that receipt says: the result and the sealed receipts know the last content only."""
    with Endpoint() as endpoint:
        scene = Scene(tmp_path, endpoint, {"late.bin": b"the begin"})
        for number, step in enumerate(steps):
            process = scene.start(step)
            scene.post("start")
            scene.killed(process)
            if number == 0:
                with (scene.root / "run/late.bin.completed").open("ab") as writer:
                    writer.write(b" and end")
        scene.files["late.bin"] += b" and end"
        scene.finish()


Outcome = Callable[[Step], None]


@pytest.mark.parametrize(
    ("work", "step"),
    [(die_while_taking_back, step) for step in TAKING_BACK] + [(die_while_taking_up, step) for step in TAKING_UP],
    ids=lambda one: str(getattr(one, "__name__", one)),
)
def test_killed_while_it_takes_a_file_back_it_sends_each_version_once(
    tmp_path: Path, work: Callable[[Scene, Step], None], step: Step
) -> None:
    with Endpoint() as endpoint:
        # longer than a scan interval: a file that is completed again in each scan never comes to its end
        work(Scene(tmp_path, endpoint, {"late.bin": b"the begin"}, retention=1), step)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Run all steps, six at a time, as each mostly waits; each test asks for the outcome of its own step."""

    folder = tmp_path_factory.mktemp("scenes")

    def run(work: Callable[[Scene, Step], None], step: Step) -> None:
        scene = folder / str(step)
        scene.mkdir()
        with Endpoint() as endpoint:
            work(Scene(scene, endpoint), step)

    with ThreadPoolExecutor(6) as pool:
        works: dict[Step, Future[None]] = {step: pool.submit(run, die_while_draining, step) for step in STEPS}
        works |= {step: pool.submit(run, die_while_giving_back, step) for step in GIVING_BACK}
        yield lambda step: works[step].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(900)  # the first one waits for the others too, on a machine that does much else
@pytest.mark.parametrize("step", [*STEPS, *GIVING_BACK], ids=str)
def test_killed_at_a_step_it_comes_to_the_same_end_and_sends_nothing_in_vain(outcome: Outcome, step: Step) -> None:
    """The next start uploads and sweeps every file, and sends nothing again that the store had taken."""
    outcome(step)


def test_killed_after_it_gave_a_file_back_that_changed_it_lets_it_settle(tmp_path: Path) -> None:
    """The next process knows nothing of the slow writer: it must wait for `settle` before it sends the file."""
    begin = FILES["large.bin"]
    with Endpoint() as endpoint:
        scene = Scene(tmp_path, endpoint, {"late.bin": begin + b" and end"}, SETTLE)
        path, claimed = scene.root / "run/late.bin", scene.root / "run/late.bin.processing"
        path.unlink()
        written = threading.Event()
        stalled = endpoint.faults.add(Do(lambda _: written.wait(LONG)), Operation.PUT_BLOCK, times=100)
        process = scene.start(Step("unlink that gives back", "after"))
        scene.post("start")
        path.with_name(".arriving").write_bytes(begin)
        path.with_name(".arriving").rename(path)
        wait_for(lambda: stalled.hits or ended(process) is not None, "blocks under way")
        changed = time.monotonic()
        with claimed.open("ab") as writer:
            writer.write(b" and end")
        written.set()
        death = scene.killed(process)
        endpoint.faults.clear()
        assert path.exists()
        scene.finish()
        sent = [one.started for one in endpoint.log.of(Operation.PUT_BLOCK) if one.started > death]
        assert min(sent) >= changed + SETTLE

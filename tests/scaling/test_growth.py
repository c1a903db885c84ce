"""How the work grows: the cost of a record, file, folder, block or shard more, counted on the real code."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.invariants.bed import BLOCK, Bed, Hooked
from tests.scaling.counting import calls, counted
from tests.scaling.shards import Shards, standing_in
from tests.support.programs import router, wait_for
from uploader.blob.store import Blocks
from uploader.cluster import replicas
from uploader.cluster.placement import rank
from uploader.cluster.replicas import FixedReplicas, KubernetesReplicas
from uploader.session import Session, State
from uploader.sessions.records import Records
from uploader.sessions.service import RECONCILE, Service
from uploader.share.listings import TICK


def service(folder: Path, ordinal: int, shards: int) -> Service:
    """Make the loop of a shard that owns none of the sessions."""
    none: Any = SimpleNamespace()
    settings: Any = SimpleNamespace(ordinal=ordinal)
    some: Any = SimpleNamespace(root=folder, receipts=none)
    return Service(settings, some, Records(folder, ordinal), FixedReplicas(shards), none, none, some)


def looks(folder: Path, shards: int, *, again: bool) -> dict[str, int]:
    """Let every shard look at the records once, or once more when they are known; return the calls."""
    loops = [service(folder, ordinal, shards + 1) for ordinal in range(shards)]
    loops[0].reconcile()  # what is imported late counts for nobody
    loops[0].records._stamp = ()  # as before its first look
    if again:
        for loop in loops:
            loop.reconcile()
            loop.records._since -= TICK
            loop.reconcile()
    calls.clear()
    for loop in loops:
        loop.reconcile()
    return dict(calls)


@pytest.mark.parametrize(("shards", "sessions"), [(1, 10), (1, 1000), (20, 10), (20, 100)])
def test_every_shard_reads_every_record_after_a_change_and_else_looks_at_the_folder(
    tmp_path: Path, shards: int, sessions: int
) -> None:
    """Sessions times shards, the only product in the system, is paid for a change and not for time."""
    one = Session("", State.ACTIVE, shards, "2026-01-01T00:00:00.000Z")
    for number in range(sessions):
        record = replace(one, name=f"run-{number}")
        (tmp_path / f"{record.name}.json").write_bytes(record.to_json())
    changed = partial(looks, again=False)
    assert counted(changed, tmp_path, shards) == {"open": shards * (sessions + 1), "os.listdir": shards}
    assert counted(partial(looks, again=True), tmp_path, shards) == {"open": shards}


def scanned(bed: Bed) -> int:
    """Scan once; return the files and folders opened for it."""
    calls.clear()
    bed.scan()
    return calls["open"]


def scans(root: Path) -> list[int]:
    """Return what a scan opens: in an empty folder, with 500 new files, with known ones, with 20 more folders."""
    bed = Bed(root, settle=3600)
    try:
        bed.scan()  # what is imported late counts for nobody
        opened = [scanned(bed)]
        for number in range(500):
            (bed.folder / f"{number}.bin").write_bytes(b"x")
        opened.append(scanned(bed))
        (bed.folder / "0.bin.completed").write_bytes(b"x")
        opened.append(scanned(bed))
        for number in range(20):
            (bed.folder / f"folder-{number}").mkdir()
        return [*opened, scanned(bed)]
    finally:
        bed.close()


def test_a_scan_opens_folders_and_new_files_and_no_file_that_is_known(tmp_path: Path) -> None:
    """Waiting files cost a scan nothing but their entries in a listing."""
    empty, new, known, folders = counted(scans, tmp_path)
    assert new == empty + 500
    assert known == empty
    assert folders == known + 20 * 2  # the folder, and its listing


class Asked(KubernetesReplicas):
    """Counts what it would have asked the API."""

    def __init__(self) -> None:
        super().__init__("nfs-watch", api="http://none")
        self.asked = 0

    def _ask(self) -> int:
        self.asked += 1
        return 1000


def test_a_shard_asks_kubernetes_in_every_second_look_at_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API's load grows with the shards only."""
    count = Asked()
    for look in range(60):
        now = SimpleNamespace(monotonic=partial(float, 1000 + look * RECONCILE))
        monkeypatch.setattr(replicas, "time", now)
        assert count.count() == 1000
    assert count.asked == 30


class Requests(Hooked):
    """Counts requests to the store."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()
        for what in ("head", "put", "stage", "commit"):
            self.before[what] = partial(self._count, what)

    def _count(self, what: str, _: str) -> None:
        self.made[what] += 1

    def blocks(self, name: str) -> Blocks:
        self.made["blocks"] += 1
        return super().blocks(name)


@pytest.mark.parametrize("blocks", [0, 1, 2, 12])
def test_a_file_is_a_request_for_each_block_and_two_more_when_there_are_several(tmp_path: Path, blocks: int) -> None:
    """A file of one block is one request, and its deletion needs none."""
    store = Requests()
    bed = Bed(tmp_path, store)
    try:
        bed.write("x.bin", b"x" * BLOCK * blocks)
        bed.scan()
        bed.work()
        bed.due()
        assert bed.names() == []
        assert store.made == ({"put": 1} if blocks < 2 else {"blocks": 1, "stage": blocks, "commit": 1})
    finally:
        bed.close()


@pytest.fixture(scope="module", params=[10, 60])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shards, str]]:
    """A router before this many shards, and its URL."""
    with standing_in(request.param) as shards:
        program = router(tmp_path_factory.mktemp("router"), shards.url, replicas=shards.count)
        try:
            program.up()
            yield shards, program.url
        finally:
            program.kill()


def test_a_status_asks_every_shard_once(front: tuple[Shards, str]) -> None:
    """The router also asks by itself every few seconds, so a status is asked for until it has the shards to itself.

    A shard that a busy machine keeps from answering in time counts as away; the status is then asked again, too.
    """
    shards, url = front
    each = list(range(shards.count))

    def alone() -> bool:
        shards.asked.clear()
        answer = httpx.get(f"{url}/v1/watch/status", timeout=60).json()
        reached = [one["shard"] for one in answer["shards"] if one["reachable"]]
        return reached == each and sorted(shards.asked) == [("GET", ordinal) for ordinal in each]

    wait_for(alone, "a status of all shards for which each was asked once")


def test_a_start_asks_the_shards_one_after_the_other_when_all_are_full(front: tuple[Shards, str]) -> None:
    """A start costs at most one request to each shard, in the order of the rank, and no look at them before."""
    shards, url = front
    each = [("POST", ordinal) for ordinal in rank("one-more", shards.count)]

    def alone() -> bool:
        shards.asked.clear()
        answer = httpx.post(f"{url}/v1/watch/start", json={"session": "one-more"}, timeout=60)
        assert answer.status_code == 409
        assert len(answer.json()["sessions"]) == shards.count
        return shards.asked == each

    wait_for(alone, "a start for which the router did not ask by itself as well")

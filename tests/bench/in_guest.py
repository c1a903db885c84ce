"""What nfs.py lets the guest do: pytest runs it there, because tests/nfs/init starts pytest. No test collects it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.costs import move, shard
from tests.bench.endpoint import Discard, discard
from tests.bench.goals import AZCOPY, OURS, RCLONE
from tests.bench.measured import Measured, cpu_of
from tests.bench.nfs import BEFORE, WITHOUT
from tests.bench.ours import uploaded
from tests.bench.peers import RUNS, azcopy, rclone, size
from tests.bench.product import product
from tests.bench.work import fill
from tests.nfs import bed
from tests.nfs.bed import HARD, V4, Site, calls, unmount
from tests.support.programs import wait_for

HOST = bed.GUEST.parent / "host"
MOUNT = f"{V4},{HARD}"
Client = Callable[[Site, Discard], Measured]


def test_small_files() -> None:
    """Measure what was asked for, and leave the result where the host reads it."""
    wait_for((HOST / "asked").exists, "what is asked")
    asked = json.loads((HOST / "asked").read_text())
    os.environ["AZCOPY"] = asked["azcopy"]
    pool = bed.SHARE / "pool"
    pool.mkdir()
    for index in range(asked["count"]):
        fill(pool / f"{index:06}.bin", 20_000)
    clients: dict[str, Client] = {OURS: _ours, AZCOPY: partial(_peer, azcopy), RCLONE: partial(_peer, rclone)}
    if asked["before"]:
        clients[BEFORE] = partial(_ours, tree=Path(asked["before"]))
    if asked["costs"]:
        clients = {OURS: _moved, WITHOUT: partial(_moved, without="receipts")}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in clients}
    with discard(bed.GUEST, tls=False, latency=asked["latency"]) as endpoint:
        for turn in range(asked["repeats"]):
            for name, client in list(clients.items())[:: -1 if turn % 2 else 1]:
                found[name].append(_measured(client, pool, endpoint))
    (HOST / "result").write_text(json.dumps(found))


def _measured(client: Client, pool: Path, endpoint: Discard) -> dict[str, Any]:
    """Run one client on a mount of its own, whose caches are empty."""
    site = Site(f"bench-{next(RUNS)}", MOUNT)
    (site.server / "run").mkdir(parents=True)
    for entry in os.scandir(pool):
        os.link(entry.path, site.server / "run" / entry.name)
    site.mount()
    measured = client(site, endpoint)
    made = calls(site.root)
    told = {"measured": asdict(measured), "calls": made.total(), "writes": made["WRITE"] + made["COMMIT"]}
    unmount(site.root)
    shutil.rmtree(site.server)
    return told


def _ours(site: Site, endpoint: Discard, tree: Path | None = None) -> Measured:
    # A session's name is a part of its blobs' names, and each run has its own.
    session = site.root / f"run-{site.name}"
    (site.root / "run").rename(session)
    return uploaded(product(site.root, bed.GUEST, endpoint, tree), session, endpoint)


def _moved(site: Site, endpoint: Discard, without: str | None = None) -> Measured:
    """Let a shard send the files and delete them."""
    session = site.root / f"run-{site.name}"
    (site.root / "run").rename(session)
    files, content = size(session)
    server = shard(site.root, bed.GUEST, endpoint, without)
    try:
        server.up()
        cpu = cpu_of(server.pid)
        return Measured(move(server, session), cpu_of(server.pid) - cpu, 0, files, content)
    finally:
        server.kill()


def _peer(copy: Callable[..., Measured], site: Site, endpoint: Discard) -> Measured:
    return copy(site.root / "run", bed.GUEST, endpoint, md5=True)

"""The arithmetic of docs/scaling.md: what S shards, with one session each, need of everything that they share.

Settings are read from the product; measured figures stand here, and the page says how they were measured.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from math import ceil

import yaml

from router.app import POLL
from tests.support.programs import TOP
from uploader.cluster.replicas import KubernetesReplicas
from uploader.sessions.records import READ_AGAIN
from uploader.sessions.service import RECONCILE

SIZES = (10, 100, 1000)
TTL = float(signature(KubernetesReplicas).parameters["ttl"].default)  # seconds

# Measured on a real NFS mount (the page says how): calls to the server.
IDLE_CALLS = 272 / 60  # a second, of a shard with one session and nothing to do, version 4.2
LOOK = 1.0  # each look at the folder of the records, by the client's source: an open asks the server for its times
RECORD_V3 = 1.0  # a record, each time that a shard reads the records, version 3
RECORD_ALONE = 2.0  # the same, version 4.2 when the server gives no delegation
FILE_CALLS = 25.0  # a file of one block, from its discovery to its deletion, version 4.2 (docs/nfs.md, section 7)
# kubernetes.io/docs/setup/best-practices/cluster-large
PODS_A_NODE = 110
# learn.microsoft.com/azure/storage/common/scalability-targets-standard-account: what every region has
INGRESS = 25  # Gbit/s
REQUESTS = 20_000  # a second


def reserved() -> dict[str, float]:
    """Return what the manifest reserves for a shard: cores and GiB."""
    manifests = yaml.safe_load_all((TOP / "k8s/base/shards.yaml").read_text(encoding="utf-8"))
    pod = next(one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "StatefulSet")
    wanted = pod["containers"][0]["resources"]["requests"]
    cpu, memory = wanted["cpu"].removesuffix("m"), wanted["memory"].removesuffix("Mi")
    return {"cpu": int(cpu) / 1000, "memory": int(memory) / 1024}


RESERVED = reserved()


@dataclass(frozen=True)
class Shard:
    """The measured speed of one shard (docs/benchmarks.md): MB/s of large files, and small files a second."""

    megabytes: float
    files: float


def gigabits(shards: int, shard: Shard) -> float:
    """Return the most that these shards send, in Gbit/s."""
    return shards * shard.megabytes * 8 / 1000


def idle_calls(shards: int) -> float:
    """Return the calls a second to the share when each has a session and nothing to do, version 4.2."""
    return shards * IDLE_CALLS


def record_calls(shards: int, a_record: float) -> float:
    """Return the calls a second to the share for the records while none changes: looks, and now and then a reading."""
    return shards * (LOOK / RECONCILE + shards * a_record / READ_AGAIN)


def api_requests(shards: int) -> float:
    """Return the requests a second to the Kubernetes API: a count holds for `ttl`, and is asked for at each look."""
    return shards / (ceil(TTL / RECONCILE) * RECONCILE)


Row = tuple[str, Callable[[int, Shard], float]]
ALWAYS: tuple[Row, ...] = (
    ("share: calls/s of idle shards", lambda n, _: idle_calls(n)),
    ("share: calls/s for the records, version 3", lambda n, _: record_calls(n, RECORD_V3)),
    ("share: calls/s for the records, 4.2 without delegations", lambda n, _: record_calls(n, RECORD_ALONE)),
    ("share: delegations for the records, 4.2", lambda n, _: n * ceil(n / PODS_A_NODE)),
    ("Kubernetes API: requests/s", lambda n, _: api_requests(n)),
    ("router: requests/s to shards while somebody watches", lambda n, _: n / POLL),
    ("nodes at least", lambda n, _: ceil(n / PODS_A_NODE)),
    ("cores reserved (k8s/base/shards.yaml)", lambda n, _: n * RESERVED["cpu"]),
    ("memory reserved, GiB", lambda n, _: n * RESERVED["memory"]),
)
BUSY: tuple[Row, ...] = (
    ("uplink, Gbit/s: S x R", gigabits),
    ("storage accounts for that ingress", lambda n, one: ceil(gigabits(n, one) / INGRESS)),
    ("store: requests/s of small files: S x F", lambda n, one: n * one.files),
    ("storage accounts for those requests", lambda n, one: ceil(n * one.files / REQUESTS)),
    ("share: calls/s of small files", lambda n, one: n * one.files * FILE_CALLS),
)


def table(rows: tuple[Row, ...], shard: Shard | None) -> Iterator[str]:
    """Yield the lines of a table of the page; without a shard's figures its cells are marked as open."""
    for name, of in rows:
        cells = [_figure(of(size, shard)) if shard else "{{...}}" for size in SIZES]
        yield f"| {name} | {' | '.join(cells)} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"

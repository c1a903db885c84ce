"""Tests on a real cluster, which KUBECONFIG names and which has the images (`make cluster`); skipped without it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.cluster import Cluster, eventually, get, kubectl
from tests.kubernetes.missing import for_the_cluster
from tests.need import need
from tests.support.manifests import KUBECTL

pytestmark = [
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG names no cluster (make cluster)"),
    pytest.mark.timeout(1500),
]
FILES = {"run-0": 2400, "run-1": 800, "run-2": 800}
LATE = 200  # of each session's files: so many are written while shards are scaled away
# Sent to the program from a second process in its container.
SIGNAL = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\\0")
    if b"uploader" in words:
        os.kill(int(pid), int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need(KUBECTL)
    if missing := for_the_cluster(os.environ):
        pytest.fail(missing)
    found = Cluster(Path(tmp_path_factory.mktemp("cluster")))
    found.down()
    found.up()
    yield found
    found.down()


def can(verb: str, what: str) -> bool:
    account = "system:serviceaccount:nfs-watch-test:nfs-watch"
    return kubectl("auth", "can-i", verb, what, f"--as={account}", "-q") == ""


def test_the_service_account_may_get_its_statefulset_and_nothing_else(cluster: Cluster) -> None:
    """The cluster's own answer to what the Role allows."""
    del cluster
    assert can("get", "statefulsets.apps/nfs-watch")
    for verb, what in (
        ("list", "statefulsets.apps"),
        ("patch", "statefulsets.apps/nfs-watch"),
        ("get", "pods"),
        ("get", "secrets"),
    ):
        with pytest.raises(AssertionError):
            can(verb, what)


def test_sessions_live_through_scaling_deletions_and_a_shard_that_hangs(cluster: Cluster) -> None:
    """1 -> 3 -> 1 shards while files arrive; every blob is right at the end and nothing is left on the share."""
    assert cluster.http("POST", "/v1/watch/start", {"session": "run-0"})[0] == 201
    assert cluster.where() == {"run-0": 0}
    writers = [cluster.write("run-0", range(FILES["run-0"] - LATE), 120)]

    cluster.scale(3)
    cluster.apply()
    assert get("statefulset", "nfs-watch")["spec"]["replicas"] == 3, "applying again must not undo the scaling"
    assert cluster.where() == {"run-0": 0}, "scaling up moves nothing"
    for session in ("run-1", "run-2"):
        status, body = cluster.http("POST", "/v1/watch/start", {"session": session})
        assert status == 201, body
    homes = cluster.where()
    assert sorted(homes.values()) == [0, 1, 2], "three shards carry three sessions"
    status, body = cluster.http("POST", "/v1/watch/start", {"session": "run-3"})
    assert (status, body["code"]) == (409, "shard-full")
    writers += [cluster.write(session, range(FILES[session] - LATE), 90) for session in ("run-1", "run-2")]

    deleted = {ordinal: cluster.pod(ordinal)["metadata"]["uid"] for ordinal in (1, 2)}
    kubectl("delete", "pod", "nfs-watch-1", "--wait=false")
    kubectl("delete", "pod", "nfs-watch-2", "--wait=false", "--force", "--grace-period=0")
    for ordinal, uid in deleted.items():
        eventually(lambda o=ordinal, u=uid: cluster.ready(o, unlike=u), f"a new pod for shard {ordinal}")  # type: ignore[misc]
    eventually(lambda: cluster.where() == homes, "the sessions to be resumed where they were")

    before = life(cluster, 0)
    send(signal.SIGSTOP)  # a stopped program answers no probe
    eventually(lambda: life(cluster, 0) != before and cluster.ready(0), "the liveness probe to end the hung shard")
    said = [event["message"] for event in get("events", "--field-selector=reason=Unhealthy")["items"]]
    assert any(line.startswith("Liveness probe failed") for line in said), said
    eventually(lambda: cluster.where() == homes, "its session to be resumed")

    writers += [cluster.write(session, range(count - LATE, count), 30) for session, count in FILES.items()]
    cluster.scale(1)
    eventually(lambda: cluster.where() == dict.fromkeys(FILES, 0), "shard 0 to adopt the others' sessions")

    assert [writer.wait(600) for writer in writers] == [0] * len(writers)
    eventually(lambda: payload(cluster) == [], "every file to be uploaded and swept", 600)
    for session in FILES:
        status, body = cluster.http("POST", "/v1/watch/stop", {"session": session})
        assert status in {200, 202}, body
    eventually(lambda: cluster.where() == {} and records(cluster) == [], "the records to be gone")
    for session, count in FILES.items():
        assert cluster.client("check", session, str(count)) == {"missing": [], "wrong": [], "extra": []}
    router = get("pods", "-l", "app.kubernetes.io/component=router")["items"]
    assert [c["restartCount"] for pod in router for c in pod["status"]["containerStatuses"]] == [0]


def send(number: int) -> None:
    """Send a signal to shard 0."""
    with contextlib.suppress(AssertionError):  # the command may end with its container
        kubectl("exec", "nfs-watch-0", "--", "python", "-c", SIGNAL, str(number))


def life(cluster: Cluster, ordinal: int) -> tuple[str, int]:
    """Tell one life of a shard's program from the next: its pod, and how often its container was restarted."""
    pod = cluster.pod(ordinal)
    return pod["metadata"]["uid"], sum(c["restartCount"] for c in pod["status"].get("containerStatuses", []))


def records(cluster: Cluster) -> list[str]:
    return [path for path in cluster.client("left") if path.startswith(".nfs-watch/sessions/")]


def payload(cluster: Cluster) -> list[str]:
    """List the sessions' files on the share, without the records."""
    return [path for path in cluster.client("left") if not path.startswith(".nfs-watch/")]


def test_scaled_to_0_a_start_says_so_and_a_session_waits(cluster: Cluster) -> None:
    """After scaling to 0 and up again the session is resumed, with the files that came in between."""
    assert cluster.http("POST", "/v1/watch/start", {"session": "night"})[0] == 201
    kubectl("scale", "statefulset/nfs-watch", "--replicas=0")
    eventually(lambda: cluster.http("POST", "/v1/watch/start", {"session": "x"})[0] == 503, "no shards")
    assert cluster.write("night", range(50), 1).wait(600) == 0
    cluster.scale(1)
    eventually(lambda: payload(cluster) == [], "the files to be uploaded")
    assert cluster.http("POST", "/v1/watch/stop", {"session": "night"})[0] in {200, 202}
    assert cluster.client("check", "night", "50") == {"missing": [], "wrong": [], "extra": []}


@pytest.mark.parametrize(
    ("number", "replaces"), [(signal.SIGTERM, True), (signal.SIGKILL, True), (signal.SIGABRT, False)]
)
def test_the_exit_code_decides_between_a_new_pod_and_the_container_again(
    cluster: Cluster, number: int, *, replaces: bool
) -> None:
    """143 and 137 end the pod, as 75 does; 134 is any other code. Before 1.35 the container is started again."""
    before = life(cluster, 0)
    send(number)
    eventually(lambda: life(cluster, 0) != before and cluster.ready(0), "the shard to begin anew")
    assert (life(cluster, 0)[0] != before[0]) == (replaces and not cluster.older)

"""The number of shards, as a real HTTPS server that plays the Kubernetes API tells it."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.kubernetes.api import Api, spec
from tests.support.clock import Clock
from tests.support.programs import wait_for
from uploader.cluster import replicas as module
from uploader.cluster.replicas import FixedReplicas, KubernetesReplicas, ReplicasUnknown, replicas
from uploader.errors import BadConfiguration

PATH = "/apis/apps/v1/namespaces/lab/statefulsets/nfs-watch"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def api(authority: trustme.CA) -> Iterator[Api]:
    with Api(authority) as server:
        yield server


@pytest.fixture
def account(tmp_path: Path, api: Api) -> Path:
    return api.account(tmp_path)


def asking(api: Api, account: Path, ttl: float = 0.0, timeout: float = 60.0) -> KubernetesReplicas:
    return KubernetesReplicas("nfs-watch", api=api.url, folder=account, ttl=ttl, timeout=timeout)


def test_asks_for_exactly_this_statefulset(api: Api, account: Path) -> None:
    """One request, with the service account's token: what the Role in k8s/ allows."""
    api.body = spec(3)
    assert asking(api, account).count() == 3
    assert api.asked == [(PATH, "Bearer first")]


def test_zero_replicas_is_an_answer(api: Api, account: Path) -> None:
    """A deployment that was scaled to 0 must not be taken for an API that fails."""
    api.body = spec(0)
    assert asking(api, account).count() == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_an_answer_is_kept_for_ttl_seconds_and_no_longer(api: Api, account: Path, clock: Clock) -> None:
    """The API is spared, and a change of the scale is known within that time."""
    shards = asking(api, account, ttl=3)
    assert [shards.count() for _ in range(50)] == [1] * 50
    assert len(api.asked) == 1
    api.body = spec(4)
    clock.now += 2.9
    assert shards.count() == 1
    clock.now += 0.1
    assert shards.count() == 4
    assert len(api.asked) == 2


def test_the_token_is_read_again_for_each_request(api: Api, account: Path) -> None:
    """Kubernetes replaces the token in its file every hour."""
    shards = asking(api, account)
    shards.count()
    (account / "token").write_text("second")
    shards.count()
    assert [token for _, token in api.asked] == ["Bearer first", "Bearer second"]


def test_a_server_of_another_authority_is_not_believed(api: Api, account: Path) -> None:
    """The token is not even sent to it."""
    trustme.CA().cert_pem.write_to_path(str(account / "ca.crt"))
    with pytest.raises(ReplicasUnknown, match=r"(?i)certificate"):
        asking(api, account).count()
    assert api.asked == []


BAD_ANSWERS = [
    (403, b"{}", "needs a Role that allows get on the StatefulSet 'nfs-watch' in namespace 'lab'"),
    (401, b"{}", "does not accept the service account's token"),
    (404, b"{}", "NFS_WATCH_STATEFULSET"),
    (500, b"oops", "answers 500"),
    (302, b"", "answers 302"),
    (200, b"<html>", ""),
    (200, b"", ""),
    (200, b"\xff\xfe", ""),
    (200, b"[]", "no usable spec.replicas"),
    (200, b'{"spec": null}', "no usable spec.replicas"),
    (200, b'{"spec": {}}', "no usable spec.replicas"),
    (200, spec(-1), "no usable spec.replicas"),
    (200, spec(True), "no usable spec.replicas"),
    (200, spec("3"), "no usable spec.replicas"),
    (200, spec(2.5), "no usable spec.replicas"),
]


@pytest.mark.parametrize(("status", "body", "text"), BAD_ANSWERS)
def test_a_bad_answer_before_the_first_good_one_is_unknown_and_says_why(
    api: Api, account: Path, status: int, body: bytes, text: str
) -> None:
    """A caller gets the cause instead of a session placed by a guess."""
    api.status, api.body = status, body
    with pytest.raises(ReplicasUnknown, match=r"not known yet: .") as caught:
        asking(api, account).count()
    assert text in str(caught.value)


@pytest.mark.parametrize(("status", "body", "text"), BAD_ANSWERS)
def test_a_bad_answer_after_a_good_one_changes_nothing(
    api: Api, account: Path, status: int, body: bytes, text: str
) -> None:
    """Shards go on with the count that they know while the API fails."""
    api.body = spec(5)
    shards = asking(api, account)
    assert shards.count() == 5
    api.status, api.body = status, body
    assert shards.count() == 5
    api.status, api.body = 200, spec(6)
    assert shards.count() == 6, text


@pytest.mark.parametrize("name", ["token", "namespace", "ca.crt"])
def test_a_service_account_that_is_not_mounted_is_named(api: Api, account: Path, name: str) -> None:
    """The operator reads which file is missing."""
    (account / name).unlink()
    with pytest.raises(ReplicasUnknown, match="No such file"):
        asking(api, account).count()


def test_a_refused_connection_keeps_the_last_count(api: Api, account: Path) -> None:
    """An API server that restarts stops no shard."""
    shards = asking(api, account)
    api.body = spec(2)
    assert shards.count() == 2
    api.shutdown()
    api.server_close()
    assert shards.count() == 2


def test_an_api_that_hangs_costs_one_timeout_per_ttl(
    api: Api, account: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last count is used, and the new one only when the API has answered."""
    shards = asking(api, account, ttl=3)
    assert shards.count() == 1
    api.let_go.clear()
    api.body = spec(9)
    tries: list[float] = []
    ask = shards._ask

    def tried() -> int:
        tries.append(clock.now)
        return ask()

    monkeypatch.setattr(shards, "_ask", tried)
    monkeypatch.setattr(shards, "_timeout", 0.3)
    for _ in range(2):
        clock.now += 3
        assert [shards.count() for _ in range(100)] == [1] * 100
    assert tries == [1003, 1006]


def test_many_threads_make_one_request_and_all_get_its_answer(api: Api, account: Path) -> None:
    """A burst of requests at the start costs the API one question."""
    api.let_go.clear()
    shards = asking(api, account, ttl=3600)
    found: list[int] = []
    together = threading.Barrier(21)

    def ask() -> None:
        together.wait()
        found.append(shards.count())

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    together.wait()
    wait_for(lambda: api.asked, "the one request")
    assert not found, "there is nothing to answer yet"
    api.let_go.set()
    for thread in threads:
        thread.join()
    assert found == [1] * 20
    assert len(api.asked) == 1


def test_nobody_waits_for_a_refresh_while_a_count_is_known(api: Api, account: Path) -> None:
    """While one thread asks, the others use the known count; a thread that waited would be told 7."""
    shards = asking(api, account)
    shards.count()
    api.let_go.clear()
    api.body = spec(7)
    asker = threading.Thread(target=shards.count)
    asker.start()
    wait_for(lambda: len(api.asked) == 2, "the refresh")
    assert shards.count() == 1
    api.let_go.set()
    asker.join()
    assert len(api.asked) == 2


def test_the_log_has_one_line_for_each_change_of_state(
    api: Api, account: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An API that is away for days does not fill the log, and the token never reaches it."""
    caplog.set_level(logging.INFO, logger=module.__name__)
    shards = asking(api, account)
    for status in (403, 403, 500, 200, 200, 403, 500, 200):
        api.status = status
        if api.status != 200 and shards._count is None:
            with pytest.raises(ReplicasUnknown):
                shards.count()
        else:
            shards.count()
    names = [record.message for record in caplog.records if record.name == module.__name__]
    assert names == ["replicas.unavailable", "replicas.known"] * 2
    errors = [record.__dict__["error"] for record in caplog.records if record.message == "replicas.unavailable"]
    assert all("Role" in error for error in errors)
    assert "first" not in caplog.text, "the token must not reach the log"


def test_a_fixed_number_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS_WATCH_REPLICAS, where it is set, is used even in a pod."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    source = replicas(4, "nfs-watch")
    assert isinstance(source, FixedReplicas)
    assert source.count() == 4
    with pytest.raises(ValueError, match="-1"):
        replicas(-1, "nfs-watch")


@pytest.mark.parametrize(
    ("host", "url"), [("192.0.2.1", "https://192.0.2.1:6443"), ("2001:db8::1", "https://[2001:db8::1]:6443")]
)
def test_in_a_pod_the_api_is_asked(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    """The address comes from the variables that Kubernetes sets, also for IPv6."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    source = replicas(None, "nfs-watch")
    assert isinstance(source, KubernetesReplicas)
    assert source._api == url


def test_outside_kubernetes_the_setting_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to ask, so the operator is told which variable to set."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BadConfiguration, match="NFS_WATCH_REPLICAS"):
        replicas(None, "nfs-watch")

"""The manifests: the programs' settings, how they are reached, and when the kubelet ends them."""

import re

import pytest

from tests.support.manifests import AZURE, OVERLAYS, Document, built, containers, one, pod_of, quantity

PROGRAMS = [("StatefulSet", "nfs-watch"), ("Deployment", "nfs-watch-router")]
OF_THE_POD = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "NODE_NAME": "spec.nodeName",
}


@pytest.fixture(params=OVERLAYS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return built(str(request.param))


@pytest.fixture(params=PROGRAMS, ids=["shard", "router"])
def program(documents: list[Document], request: pytest.FixtureRequest) -> Document:
    """The program's container."""
    return dict(pod_of(one(documents, *request.param))["containers"][0])


def test_the_programs_get_the_settings(documents: list[Document], program: Document) -> None:
    """Both read one ConfigMap whose name changes with its content, so that a change restarts them."""
    maps = [doc["metadata"]["name"] for doc in documents if doc["metadata"]["name"].startswith("nfs-watch-settings-")]
    assert [source["configMapRef"]["name"] for source in program["envFrom"] if "configMapRef" in source] == maps


def test_the_programs_know_their_pod(program: Document) -> None:
    """The ordinal comes from the pod's name; the other fields label its telemetry."""
    fields = {env["name"]: env["valueFrom"] for env in program["env"] if "fieldRef" in env.get("valueFrom", {})}
    assert fields == {name: {"fieldRef": {"fieldPath": path}} for name, path in OF_THE_POD.items()}


@pytest.mark.parametrize("name", AZURE)
def test_the_service_principal_is_read_from_the_secret(name: str) -> None:
    """Tenant and client by key: reading all keys would bring a left-over client secret along."""
    container = pod_of(one(built(name), "StatefulSet", "nfs-watch"))["containers"][0]
    read = {env["name"]: env["valueFrom"] for env in container["env"] if "secretKeyRef" in env.get("valueFrom", {})}
    assert read == {
        variable: {"secretKeyRef": {"name": "nfs-watch-azure", "key": key}}
        for variable, key in (("AZURE_TENANT_ID", "tenant-id"), ("AZURE_CLIENT_ID", "client-id"))
    }
    assert not [source for source in container["envFrom"] if "secretRef" in source]


def test_only_the_router_is_reached_from_outside(documents: list[Document]) -> None:
    """The only NodePort is the router's, with the number that docs/deploy.md gives."""
    services = {doc["metadata"]["name"]: doc["spec"] for doc in documents if doc["kind"] == "Service"}
    outside = {name: spec for name, spec in services.items() if spec.get("type", "ClusterIP") != "ClusterIP"}
    assert outside.keys() == {"nfs-watch-router"}
    assert outside["nfs-watch-router"]["type"] == "NodePort"
    assert [port["nodePort"] for port in outside["nfs-watch-router"]["ports"]] == [30080]


def test_a_program_that_hangs_is_ended_within_a_minute(program: Document) -> None:
    """But not before 20 s, which a busy device may need to answer."""
    probe = program["livenessProbe"]
    longest = probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"])
    assert 20 <= longest <= 60


def test_a_shard_may_take_two_minutes_to_start(documents: list[Document]) -> None:
    """A store or share may answer slowly at first: until then no liveness probe ends the shard."""
    probe = pod_of(one(documents, "StatefulSet", "nfs-watch"))["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 120


def test_every_probe_asks_a_port_that_is_open(documents: list[Document]) -> None:
    """A probe of a misspelt port would end each pod again and again."""
    for container in containers(documents):
        ports = {port["name"] for port in container["ports"]}
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        assert probes, container["name"]
        assert all((probe.get("httpGet") or probe["tcpSocket"])["port"] in ports for probe in probes)


def test_every_amount_is_one(documents: list[Document]) -> None:
    """The schema takes any text for an amount."""
    for container in containers(documents):
        asked, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert 0 < quantity(asked["memory"]) <= quantity(limits["memory"])
        assert re.fullmatch(r"[1-9]\d*m", asked["cpu"])
        assert "cpu" not in limits


@pytest.mark.parametrize("name", AZURE)
def test_one_collector_reads_the_configuration_that_is_mounted(name: str) -> None:
    """Two collectors would both be scraped, each with half of the numbers."""
    collector = one(built(name), "Deployment", "nfs-watch-collector")
    assert collector["spec"]["replicas"] == 1
    assert collector["spec"]["strategy"] == {"type": "Recreate"}
    container = pod_of(collector)["containers"][0]
    volumes = {volume["name"]: volume for volume in pod_of(collector)["volumes"]}
    (mount,) = container["volumeMounts"]
    found = one(built(name), "ConfigMap", volumes[mount["name"]]["configMap"]["name"])
    assert container["args"] == [f"--config={mount['mountPath']}/{next(iter(found['data']))}"]
    metrics = [port["containerPort"] for port in container["ports"] if port["name"] == "metrics"]
    annotations = collector["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(metrics[0])}


def test_the_role_is_bound_to_the_programs_account_and_no_pod_gets_a_token_unasked(documents: list[Document]) -> None:
    """Other pods that use the account get no token unless they ask for it."""
    assert one(documents, "ServiceAccount", "nfs-watch")["automountServiceAccountToken"] is False
    binding = one(documents, "RoleBinding", "nfs-watch")
    group = "rbac.authorization.k8s.io"
    assert binding["roleRef"] == {"apiGroup": group, "kind": "Role", "name": "nfs-watch"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "nfs-watch", "namespace": "nfs-watch"}]

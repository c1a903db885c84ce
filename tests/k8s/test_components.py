"""The components: each fits every overlay it is for, is valid, and does what its first lines say."""

from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import validate

from tests.support.manifests import (
    AZURE,
    COMPONENTS,
    CRDS,
    K8S,
    OVERLAYS,
    Document,
    build,
    built,
    containers,
    one,
    pod_of,
    quantity,
    settings_of,
    shards_of,
    with_components,
    workloads,
)
from tests.support.programs import TOP

FITS = [
    (overlay, component)
    for overlay in ("same-machine", "try-out")
    for component in COMPONENTS
    if not (component in {"certificate", "collector"} and overlay in AZURE)  # these overlays have both already
]


@pytest.mark.parametrize(("overlay", "component"), FITS)
def test_every_component_fits(tmp_path: Path, overlay: str, component: str) -> None:
    """Whoever adds a component gets manifests that the cluster takes, to an overlay with Azure and to one without."""
    version = "1.34" if component == "before-1.35" else "1.35"
    before = built(overlay)
    for document in with_components(tmp_path, overlay, component):
        if document not in before and document["kind"] not in CRDS:
            validate(document, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_says_what_it_belongs_to(tmp_path: Path, overlay: str) -> None:
    """`kubectl get all,pvc,networkpolicy -l app.kubernetes.io/part-of=nfs-watch` finds them, and dashboards group by them."""
    every = ["guaranteed", "network-policy", "prometheus-operator", "staging"]
    for document in [*built(overlay), *with_components(tmp_path, overlay, *every)]:
        labels = document["metadata"].get("labels", {})
        assert "app.kubernetes.io/name" in labels, (document["kind"], document["metadata"]["name"])
    for document in built(overlay):
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "nfs-watch", (document["kind"], document["metadata"]["name"])
        assert labels["app.kubernetes.io/managed-by"] == "kustomize"


@pytest.fixture
def policies(tmp_path: Path) -> tuple[list[Document], dict[str, Document]]:
    documents = with_components(tmp_path, "same-machine", "network-policy")
    return documents, {doc["metadata"]["name"]: doc["spec"] for doc in documents if doc["kind"] == "NetworkPolicy"}


def chosen(documents: list[Document], selector: Document) -> set[str]:
    wanted = selector.get("matchLabels", {}).items()
    return {
        doc["metadata"]["name"]
        for doc in workloads(documents)
        if wanted <= doc["spec"]["template"]["metadata"]["labels"].items()
    }


def test_what_is_not_allowed_is_refused(policies: tuple[list[Document], dict[str, Document]]) -> None:
    """A policy without a rule covers every pod of ours; each other policy opens one way in, by ports that exist."""
    documents, found = policies
    ours = {doc["metadata"]["name"] for doc in workloads(documents)}
    assert chosen(documents, found["nfs-watch"]["podSelector"]) == ours
    assert "ingress" not in found["nfs-watch"]
    assert all(policy["policyTypes"] == ["Ingress"] for policy in found.values())
    for policy in found.values():
        for name in chosen(documents, policy["podSelector"]):
            (doc,) = [doc for doc in workloads(documents) if doc["metadata"]["name"] == name]
            ports = {port["name"] for port in pod_of(doc)["containers"][0]["ports"]}
            for rule in policy.get("ingress", []):
                assert rule["from"]
                assert {port["port"] for port in rule["ports"]} <= ports


def test_only_the_router_reaches_a_shard(policies: tuple[list[Document], dict[str, Document]]) -> None:
    """Whoever would ask a shard directly goes through the node, as kubectl port-forward does."""
    documents, found = policies
    policy = found["nfs-watch-shards"]
    assert chosen(documents, policy["podSelector"]) == {"nfs-watch"}
    (rule,) = policy["ingress"]
    (source,) = rule["from"]
    assert source.keys() == {"podSelector"}
    assert chosen(documents, source["podSelector"]) == {"nfs-watch-router"}


def test_the_router_is_reached_from_private_addresses_only(
    policies: tuple[list[Document], dict[str, Document]],
) -> None:
    """RFC 1918 and IPv6's own: a cluster with a public address does not serve the internet."""
    documents, found = policies
    assert chosen(documents, found["nfs-watch-router"]["podSelector"]) == {"nfs-watch-router"}
    (rule,) = found["nfs-watch-router"]["ingress"]
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"}
    assert {source["ipBlock"]["cidr"] for source in rule["from"]} == private


def test_the_operators_rules_are_the_alerts(tmp_path: Path) -> None:
    """One set of alerts, whichever way Prometheus reads them."""
    documents = with_components(tmp_path, "nfs-v4", "prometheus-operator")
    rules = one(documents, "PrometheusRule", "nfs-watch")
    assert rules["apiVersion"] == "monitoring.coreos.com/v1"
    assert rules["spec"] == yaml.safe_load((K8S / "alerts.yaml").read_text())
    monitor = one(documents, "PodMonitor", "nfs-watch")["spec"]
    assert chosen(documents, monitor["selector"]) == {"nfs-watch-collector"}
    (endpoint,) = monitor["podMetricsEndpoints"]
    collector = pod_of(one(documents, "Deployment", "nfs-watch-collector"))["containers"][0]
    assert endpoint["port"] in {port["name"] for port in collector["ports"]}
    assert endpoint["honorLabels"] is True


def test_guaranteed_pods_ask_for_all_that_they_may_use(tmp_path: Path) -> None:
    """Quality of service Guaranteed: for cpu and memory, requests are limits, in every container of the pod."""
    documents = with_components(tmp_path, "same-machine", "guaranteed")
    priority = one(documents, "PriorityClass", "nfs-watch")
    assert priority["preemptionPolicy"] == "Never"
    for kind, name in (("StatefulSet", "nfs-watch"), ("Deployment", "nfs-watch-router")):
        pod = pod_of(one(documents, kind, name))
        assert pod["priorityClassName"] == "nfs-watch"
        for container in pod["containers"]:
            asked, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert [asked[key] for key in ("cpu", "memory")] == [limits[key] for key in ("cpu", "memory")]


def test_the_least_device_has_room_for_one_shard(tmp_path: Path) -> None:
    """8 GB: what the pods may use at most leaves three quarters to the device's own work."""
    documents = with_components(tmp_path, "same-machine", "guaranteed")
    most = sum(quantity(container["resources"]["limits"]["memory"]) for container in containers(documents))
    assert most < 2 * 2**30
    assert shards_of(documents)["spec"].get("replicas", 1) == 1


def test_the_overlay_of_the_documentation_builds_beside_the_clone(tmp_path: Path) -> None:
    """What docs/deploy.md prints for a site of its own: nothing of it lies in the clone."""
    text = (TOP / "docs/deploy.md").read_text().partition("<<'END'\n")[2].partition("END\n")[0]
    (tmp_path / "nfs-watch").symlink_to(TOP)
    (site := tmp_path / "site").mkdir()
    (site / "kustomization.yaml").write_text(text)
    documents = build(site)
    assert one(documents, "PersistentVolume", "nfs-watch-share")["spec"]["local"]["path"] == "/data/share"
    assert settings_of(documents)["NFS_WATCH_NAMES"] == "jetson.example.org"
    assert settings_of(documents)["NFS_WATCH_ACCOUNT_URL"] == "https://myaccount.blob.core.windows.net"
    for document in documents:
        validate(document, "1.36", strict=True)

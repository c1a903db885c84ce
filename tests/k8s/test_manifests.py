"""The manifests: each overlay is built as `kubectl apply -k` builds it, validated, and held to what matters."""

from base64 import b64decode
from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import ValidationError, validate

from router import settings as router_settings
from tests.support.manifests import (
    OVERLAYS,
    Document,
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
from uploader.settings import Settings, load
from uploader.version import VERSION


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def documents(overlay: str) -> list[Document]:
    return built(overlay)


# --- valid at all


@pytest.mark.parametrize("version", ["1.35", "1.36", "1.37"])
def test_every_document_is_valid_in_this_kubernetes(documents: list[Document], version: str) -> None:
    """A misspelt field is refused here, not on the device."""
    for document in documents:
        validate(document, version, strict=True)


def test_older_clusters_take_it_with_their_component(overlay: str, tmp_path: Path) -> None:
    """Before 1.35 the overlay alone is refused; with the component before-1.35 it is valid back to 1.30."""
    with pytest.raises(ValidationError, match="restartPolicyRules"):
        validate(shards_of(built(overlay)), "1.33", strict=True)
    for document in with_components(tmp_path, overlay, "before-1.35"):
        validate(document, "1.30", strict=True)


def test_every_name_that_is_referred_to_exists(documents: list[Document]) -> None:
    """kustomize adds hashes to names: a reference that it missed would leave pods waiting for ever."""
    there = {(doc["kind"], doc["metadata"]["name"]) for doc in documents} | {("Secret", "nfs-watch-azure")}
    wanted = set()
    for workload in workloads(documents):
        pod = pod_of(workload)
        wanted |= {("ServiceAccount", pod[key]) for key in ("serviceAccountName",) if key in pod}
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                wanted |= {("ConfigMap", s["name"]) for k, s in source.items() if k == "configMapRef"}
                wanted |= {("Secret", s["name"]) for k, s in source.items() if k == "secretRef"}
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            wanted |= {("ConfigMap", volume["configMap"]["name"])} if "configMap" in volume else set()
            wanted |= {("Secret", volume["secret"]["secretName"])} if "secret" in volume else set()
            if "persistentVolumeClaim" in volume:
                wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    assert wanted <= there, wanted - there


def test_everything_lies_in_one_namespace(documents: list[Document]) -> None:
    """`kubectl delete namespace` removes all of it."""
    spaces = {
        doc["metadata"].get("namespace") for doc in documents if doc["kind"] not in {"Namespace", "PersistentVolume"}
    }
    assert spaces == {"nfs-watch"}
    assert one(documents, "RoleBinding", "nfs-watch")["subjects"][0]["namespace"] == "nfs-watch"


def test_services_find_their_pods(documents: list[Document]) -> None:
    """Each selector matches exactly one workload, and each target port is one of its container's."""
    for service in (doc for doc in documents if doc["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        matching = [w for w in workloads(documents) if selector <= w["spec"]["template"]["metadata"]["labels"].items()]
        assert len(matching) == 1, service["metadata"]["name"]
        ports = {port["name"]: port["containerPort"] for port in pod_of(matching[0])["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_each_workload_selects_its_own_pods_and_nobody_elses(documents: list[Document]) -> None:
    """Kubernetes refuses a selector that misses its own template; one that meets another's takes its pods."""
    for workload in workloads(documents):
        selector = workload["spec"]["selector"]["matchLabels"].items()
        meets = [w for w in workloads(documents) if selector <= w["spec"]["template"]["metadata"]["labels"].items()]
        assert meets == [workload], workload["metadata"]["name"]


# --- the shards


def test_re_applying_does_not_undo_kubectl_scale(documents: list[Document]) -> None:
    """A manifest with a number of replicas would scale the shards back at each apply."""
    assert "replicas" not in shards_of(documents)["spec"]


def test_shards_start_side_by_side_and_die_at_once(documents: list[Document]) -> None:
    """SIGKILL is the normal way to stop, so nothing may delay a restart."""
    spec = shards_of(documents)["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert pod_of(shards_of(documents))["terminationGracePeriodSeconds"] == 1
    assert "maxUnavailable" not in yaml.safe_dump(spec)
    assert not [doc for doc in documents if doc["kind"] == "PodDisruptionBudget"]


def test_a_dead_share_replaces_the_pod(documents: list[Document]) -> None:
    """Exit 75 and the kills fail the pod, which mounts again; every other exit restarts the container."""
    container = pod_of(shards_of(documents))["containers"][0]
    assert container["restartPolicy"] == "Never"
    rule = {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [75, 137, 143]}}
    assert container["restartPolicyRules"] == [rule]
    assert pod_of(shards_of(documents)).get("restartPolicy", "Always") == "Always"


def test_probes_ask_only_what_is_answered_from_memory(documents: list[Document]) -> None:
    """A probe that waited for the share would kill a pod for its server's outage."""
    for name, kind in (("nfs-watch", "StatefulSet"), ("nfs-watch-router", "Deployment")):
        container = pod_of(one(documents, kind, name))["containers"][0]
        probes = {key: value for key, value in container.items() if key.endswith("Probe")}
        assert {"livenessProbe", "readinessProbe"} <= probes.keys()
        for key, probe in probes.items():
            assert probe["httpGet"] == {
                "path": "/readyz" if key == "readinessProbe" else "/livez",
                "port": "http",
            }
            assert 1 < probe["timeoutSeconds"] <= 5
        assert "lifecycle" not in container


def test_the_router_finds_each_shard_by_its_name(documents: list[Document]) -> None:
    """Each pod has a DNS name even before it is ready, so that it can say itself what is wrong."""
    service = one(documents, "Service", shards_of(documents)["spec"]["serviceName"])["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    named = (
        settings_of(documents).get("NFS_WATCH_SHARD_URL") or router_settings.Settings.model_fields["shard_url"].default
    )
    assert named == f"http://nfs-watch-{{ordinal}}.nfs-watch:{service['ports'][0]['port']}"
    assert str(service["ports"][0]["port"]) == settings_of(documents)["NFS_WATCH_PORT"]
    names = [env for env in pod_of(shards_of(documents))["containers"][0]["env"] if env["name"] == "POD_NAME"]
    assert names[0]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_no_overlay_makes_local_copies(documents: list[Document]) -> None:
    """A copy is a write of every byte to the device's flash, which nobody reads."""
    assert not [name for name in settings_of(documents) if "STAGING" in name]
    pod = pod_of(shards_of(documents))
    assert [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume] == []


def test_local_copies_fit_their_volume_and_the_limit(tmp_path: Path) -> None:
    """Exceeding the sizeLimit or the limit evicts the pod, so the program's budget ends below both."""
    documents = with_components(tmp_path, "nfs-v4", "staging")
    settings, pod = settings_of(documents), pod_of(shards_of(documents))
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "staging")
    limit = quantity(volume["emptyDir"]["sizeLimit"])
    assert int(settings["NFS_WATCH_STAGING_SIZE"]) <= limit * 0.9
    container = pod["containers"][0]
    assert limit + 256 * 2**20 < quantity(container["resources"]["limits"]["ephemeral-storage"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings["NFS_WATCH_STAGING"] == mounts["staging"]


def test_logs_and_copies_count_and_are_bounded(documents: list[Document]) -> None:
    """A pod without a limit on local storage can fill the device's disk, on which its own system lies."""
    for container in containers(documents):
        resources = container["resources"]
        assert quantity(resources["limits"]["ephemeral-storage"]) >= 100 * 2**20, "five logs of 10 MiB and more"


def test_memory_is_above_what_the_settings_allow(documents: list[Document]) -> None:
    """A shard within its settings is never killed for its memory."""
    resources = pod_of(shards_of(documents))["containers"][0]["resources"]
    assert quantity(resources["limits"]["memory"]) >= 2 * int(settings_of(documents)["NFS_WATCH_MEMORY"]) + 200 * 2**20
    assert all("requests" in container["resources"] for container in containers(documents))
    assert all("memory" in container["resources"]["limits"] for container in containers(documents))


# --- settings


def test_every_setting_is_one_that_the_programs_read(
    documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt variable would be ignored silently; a wrong value is refused here as it is in the pod."""
    values = settings_of(documents)
    for secret in (doc for doc in documents if doc["kind"] == "Secret"):
        values |= {key: b64decode(value).decode() for key, value in secret["data"].items()}
    known = {f"NFS_WATCH_{field.upper()}" for field in (*Settings.model_fields, *router_settings.Settings.model_fields)}
    unknown = {name for name in values if name.startswith("NFS_WATCH_")} - known
    assert not unknown
    (folder := tmp_path / "share").mkdir()
    values["NFS_WATCH_ROOT"] = str(folder)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POD_NAME", "nfs-watch-2")
    settings = load()
    assert (settings.ordinal, settings.statefulset) == (2, "nfs-watch")
    assert settings.staging is None


def test_the_variables_of_services_stay_out(documents: list[Document]) -> None:
    """A Service named nfs-watch would set NFS_WATCH_PORT=tcp://10.43.0.7:8080."""
    assert all(pod_of(doc)["enableServiceLinks"] is False for doc in workloads(documents))


def test_both_programs_are_one_image_of_this_version(documents: list[Document]) -> None:
    """The image is loaded by hand, so it must not be pulled, and no tag may float."""
    ours = [c for c in containers(documents) if c["name"] in {"uploader", "router"}]
    assert {c["image"] for c in ours} == {f"localhost/nfs-watch:{VERSION}"}
    assert {c["imagePullPolicy"] for c in ours} == {"IfNotPresent"}, "no registry has it"
    assert sorted(c["args"] for c in ours) == [["router"], ["uploader"]]
    assert all(c["args"] == [c["name"]] and "command" not in c for c in ours)
    assert not [c["image"] for c in containers(documents) if c["image"].endswith(":latest") or ":" not in c["image"]]

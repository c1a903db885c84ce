"""The manifests: the share, who may do what, the credentials and the OpenTelemetry collector."""

import os
import re
from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import validate

from tests.support.manifests import (
    AZURE,
    K8S,
    OVERLAYS,
    Document,
    build,
    built,
    one,
    pod_of,
    quantity,
    settings_of,
    shards_of,
    workloads,
)
from tests.support.programs import KEY, TOP
from uploader.settings import Settings


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def documents(overlay: str) -> list[Document]:
    return built(overlay)


# --- the share


def test_all_shards_share_one_claim(documents: list[Document]) -> None:
    """Any shard can adopt any session only because all see the same share."""
    spec = shards_of(documents)["spec"]
    assert "volumeClaimTemplates" not in spec
    claims = [
        v["persistentVolumeClaim"] for v in pod_of(shards_of(documents))["volumes"] if "persistentVolumeClaim" in v
    ]
    assert claims == [{"claimName": "nfs-watch-share"}]
    mounts = {mount["name"]: mount for mount in pod_of(shards_of(documents))["containers"][0]["volumeMounts"]}
    assert mounts["share"] == {"name": "share", "mountPath": settings_of(documents)["NFS_WATCH_ROOT"]}


@pytest.mark.parametrize("name", AZURE)
def test_the_claim_is_bound_to_the_share_and_to_nothing_else(name: str) -> None:
    """No other claim can take the volume, and deleting the claim deletes no file."""
    claim = one(built(name), "PersistentVolumeClaim", "nfs-watch-share")["spec"]
    volume = one(built(name), "PersistentVolume", "nfs-watch-share")["spec"]
    assert claim["volumeName"] == "nfs-watch-share"
    assert volume["claimRef"] == {"namespace": "nfs-watch", "name": "nfs-watch-share"}
    assert claim["storageClassName"] == volume["storageClassName"] == ""
    assert claim["accessModes"] == volume["accessModes"] == ["ReadWriteMany"]
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"


@pytest.mark.parametrize(
    ("name", "version"), [("nfs-v4", {"nfsvers=4.2"}), ("nfs-v3", {"nfsvers=3", "proto=tcp", "nolock"})]
)
def test_a_dead_server_becomes_an_error_within_the_time_that_the_watchdog_has(name: str, version: set[str]) -> None:
    """With softerr a call fails before `nfs_timeout`; the options are those that docs/nfs.md explains."""
    options = one(built(name), "PersistentVolume", "nfs-watch-share")["spec"]["mountOptions"]
    assert version <= set(options)
    assert {"softerr", "retry=0", "actimeo=1", "lookupcache=positive", "nosuid", "nodev", "noexec"} <= set(options)
    assert not {"hard", "soft", "nosharecache"} & set(options)
    numbers = dict(option.split("=") for option in options if "=" in option)
    tries = range(1, int(numbers["retrans"]) + 2)
    assert int(numbers["timeo"]) / 10 * sum(tries) <= Settings.model_fields["nfs_timeout"].default


def test_on_the_same_machine_the_folder_itself_is_used() -> None:
    """Where the device is the NFS server too, the pods need no mount, and inotify works."""
    volume = one(built("same-machine"), "PersistentVolume", "nfs-watch-share")["spec"]
    assert volume["local"]["path"].startswith("/")
    assert not {"nfs", "hostPath"} & volume.keys()
    assert volume["nodeAffinity"]


def test_trying_out_needs_no_azure_account_and_no_server() -> None:
    """The overlay brings Azurite and uses the cluster's own storage."""
    documents = built("try-out")
    claim = one(documents, "PersistentVolumeClaim", "nfs-watch-share")["spec"]
    assert not {"storageClassName", "volumeName"} & claim.keys()
    assert not [doc for doc in documents if doc["kind"] == "PersistentVolume"]
    assert "NFS_WATCH_ACCOUNT_URL" not in settings_of(documents)
    assert one(documents, "Service", "azurite")["spec"]["ports"][0]["port"] == 10000


# --- security


def test_every_pod_is_restricted(documents: list[Document]) -> None:
    """Pod Security Standards, profile restricted: kubernetes.io/docs/concepts/security/pod-security-standards."""
    labels = one(documents, "Namespace", "nfs-watch")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "name"}
    for workload in workloads(documents):
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "fsGroup" not in pod["securityContext"] or "NFS_WATCH_ACCOUNT_URL" not in settings_of(documents)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(volume.keys() <= allowed for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == wanted
            assert not [port for port in container.get("ports", []) if "hostPort" in port]
            assert not [mount for mount in container.get("volumeMounts", []) if "subPath" in mount]


def test_the_programs_run_as_the_user_of_the_image_and_of_the_export(documents: list[Document]) -> None:
    """Another uid could not write to the share."""
    user = re.search(r"^USER (\d+):(\d+)$", (TOP / "Dockerfile").read_text(), re.MULTILINE)
    export = re.search(r"^owner=(\d+)", (K8S / "nfs-export.sh").read_text(), re.MULTILINE)
    assert user
    assert export
    for kind, name in (("StatefulSet", "nfs-watch"), ("Deployment", "nfs-watch-router")):
        security = pod_of(one(documents, kind, name))["securityContext"]
        assert [str(security[key]) for key in ("runAsUser", "runAsGroup")] == [*user.groups()] == [export[1]] * 2


def test_the_service_account_may_read_exactly_one_object(documents: list[Document]) -> None:
    """A stolen token can read the StatefulSet and nothing else; other pods have none."""
    rules = one(documents, "Role", "nfs-watch")["rules"]
    name = shards_of(documents)["metadata"]["name"]
    assert rules == [{"apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": [name], "verbs": ["get"]}]
    assert settings_of(documents)["NFS_WATCH_STATEFULSET"] == name
    assert not [doc for doc in documents if doc["kind"].startswith("ClusterRole")]
    assert one(documents, "RoleBinding", "nfs-watch")["roleRef"]["name"] == "nfs-watch"
    for workload in workloads(documents):
        asks = workload["metadata"]["name"] in {"nfs-watch", "nfs-watch-router"}
        assert pod_of(workload)["automountServiceAccountToken"] is asks
        assert (pod_of(workload).get("serviceAccountName") == "nfs-watch") is asks


@pytest.mark.parametrize("name", AZURE)
def test_the_certificate_comes_from_a_secret_that_is_not_here(name: str) -> None:
    """The manifests name the Secret, mount it read-only, and the example shows its keys."""
    documents = built(name)
    assert not [doc for doc in documents if doc["kind"] == "Secret"]
    settings = settings_of(documents)
    assert settings["AZURE_TOKEN_CREDENTIALS"] == "EnvironmentCredential"
    assert settings["NFS_WATCH_ACCOUNT_URL"].startswith("https://")
    container = pod_of(shards_of(documents))["containers"][0]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    folder, _, file = settings["AZURE_CLIENT_CERTIFICATE_PATH"].rpartition("/")
    assert mounts[folder]["readOnly"] is True
    volume = next(v for v in pod_of(shards_of(documents))["volumes"] if v["name"] == mounts[folder]["name"])
    items = volume["secret"]["items"]
    assert [item["path"] for item in items] == [file]
    asked = {
        env["valueFrom"]["secretKeyRef"]["key"]
        for env in container["env"]
        if "secretKeyRef" in env.get("valueFrom", {})
    }
    example = yaml.safe_load((K8S / "components/certificate/secret.example.yaml").read_text())
    assert example["metadata"]["name"] == volume["secret"]["secretName"]
    assert example["stringData"].keys() == asked | {item["key"] for item in items}


def test_no_secret_lies_in_the_manifests() -> None:
    """Only Azurite's published key may be in the repository."""
    for path in K8S.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "-----BEGIN" not in text, path
            assert "AZURE_CLIENT_SECRET=" not in text, path
            assert "AccountKey=" not in text.replace(f"AccountKey={KEY}", ""), path


def test_workload_identity_takes_the_certificates_place(tmp_path: Path) -> None:
    """With the component, the pod gets a projected token at the path that the credential reads."""
    top = os.path.relpath(K8S, tmp_path.resolve())
    lines = {
        "namespace": "nfs-watch",
        "resources": [f"{top}/base"],
        "components": [f"{top}/components/workload-identity"],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    documents = build(tmp_path)
    validate(shards_of(documents), "1.35", strict=True)
    settings = settings_of(documents)
    assert settings["AZURE_TOKEN_CREDENTIALS"] == "WorkloadIdentityCredential"
    assert {"AZURE_TENANT_ID", "AZURE_CLIENT_ID"} <= settings.keys()
    folder, _, file = settings["AZURE_FEDERATED_TOKEN_FILE"].rpartition("/")
    pod = pod_of(shards_of(documents))
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == folder)
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    assert token == {"path": file, "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600}


# --- the collector


@pytest.mark.parametrize("name", AZURE)
def test_the_collector_takes_otlp_and_gives_prometheus(name: str) -> None:
    """Receivers, pipelines, ports and the programs' settings agree with each other."""
    documents = built(name)
    maps = [doc for doc in documents if doc["metadata"]["name"].startswith("nfs-watch-collector-") and "data" in doc]
    config = yaml.safe_load(maps[0]["data"]["config.yaml"])
    pipelines = config["service"]["pipelines"]
    assert pipelines.keys() == {"metrics", "traces", "logs"}
    for pipeline in pipelines.values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
        assert pipeline["receivers"] == ["otlp"]
        assert pipeline["processors"][0] == "memory_limiter"
    assert pipelines["metrics"]["exporters"] == ["prometheus"]
    assert set(config["service"]["extensions"]) <= config["extensions"].keys()

    def port(endpoint: str) -> int:
        host, _, number = endpoint.rpartition(":")
        assert host == "0.0.0.0"
        return int(number)

    protocols = config["receivers"]["otlp"]["protocols"]
    listens = {port(protocols["grpc"]["endpoint"]), port(protocols["http"]["endpoint"])}
    listens.add(port(config["exporters"]["prometheus"]["endpoint"]))
    collector = one(documents, "Deployment", "nfs-watch-collector")
    service = one(documents, "Service", "nfs-watch-collector")["spec"]["ports"]
    assert {entry["port"] for entry in service} == listens
    open_ports = {entry["containerPort"] for entry in pod_of(collector)["containers"][0]["ports"]}
    assert open_ports == listens | {port(config["extensions"]["health_check"]["endpoint"])}
    memory = quantity(pod_of(collector)["containers"][0]["resources"]["limits"]["memory"])
    assert memory > config["processors"]["memory_limiter"]["limit_mib"] * 2**20
    settings = settings_of(documents)
    assert settings["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://nfs-watch-collector:4318"
    assert settings["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"

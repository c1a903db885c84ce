"""The overlay for trying out, in a namespace of its own on the cluster that KUBECONFIG names."""

import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.manifests import K8S, KUBECTL, Document, build, one, pod_of, shards_of

NAMESPACE = "nfs-watch-test"
# Variables that name other images than the manifests do
OUR_IMAGE, AZURITE_IMAGE = "NFS_WATCH_TEST_IMAGE", "NFS_WATCH_TEST_AZURITE"
CONTAINERS = {"uploader": OUR_IMAGE, "router": OUR_IMAGE, "azurite": AZURITE_IMAGE}
CLIENT = (Path(__file__).parent / "client.py").read_bytes()
# Short times, so that a test sees the whole life of a file. Retention stays above what a scan takes.
SETTINGS = {
    "NFS_WATCH_SCAN_INTERVAL": "0.5",
    "NFS_WATCH_SETTLE": "2",
    "NFS_WATCH_RETENTION": "3",
    "NFS_WATCH_SWEEP_INTERVAL": "1",
    "NFS_WATCH_STATEFULSET": "nfs-watch",
}


def kubectl(*argv: str, stdin: bytes | None = None, timeout: float = 300) -> str:
    """Run kubectl in the namespace."""
    command = [KUBECTL, "--namespace", NAMESPACE, *argv]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr.decode()[-2000:]}"
    return done.stdout.decode()


def get(*what: str) -> Any:
    return json.loads(kubectl("get", *what, "-o", "json"))


def eventually(condition: Callable[[], Any], what: str, timeout: float = 300) -> Any:
    """Wait until the condition holds; a call that fails counts as not yet."""
    end, seen = time.monotonic() + timeout, None
    while time.monotonic() < end:
        try:
            seen = condition()
            if seen:
                return seen
        except AssertionError as error:
            seen = error
        time.sleep(1)
    raise AssertionError(f"waited {timeout} s in vain for {what}; last: {seen}\n{state()}")


def state() -> str:
    """Say what the pods do, as far as the cluster tells: what a failed wait was waiting for."""
    asked = (
        ("get", "pods", "--output=wide"),
        ("get", "events", "--field-selector=type=Warning"),
        ("logs", "--selector=app.kubernetes.io/name=nfs-watch", "--tail=3", "--prefix"),
    )
    return "\n".join(said[-2000:] for what in asked if (said := _said(*what)))


def _said(*what: str) -> str:
    try:
        return kubectl(*what, timeout=30)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return str(error)


class Cluster:
    """The programs as they run in that namespace."""

    def __init__(self, tmp_path: Path) -> None:
        self.documents = self._documents(tmp_path)

    def _documents(self, tmp_path: Path) -> list[Document]:
        top = os.path.relpath(K8S, tmp_path.resolve())
        version = json.loads(kubectl("version", "-o", "json"))["serverVersion"]
        self.older = (int(version["major"]), int(version["minor"].rstrip("+"))) < (1, 35)
        lines = {
            "resources": [f"{top}/overlays/try-out"],
            "components": [f"{top}/components/before-1.35"] if self.older else [],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(lines))
        documents = [self._moved(document) for document in build(tmp_path)]
        # Makes the program visible to a second process in its container, which can then stop it.
        shards_of(documents)["spec"]["template"]["spec"]["shareProcessNamespace"] = True
        return [*documents, client_pod(shards_of(documents))]

    def _moved(self, document: Document) -> Document:
        if document["kind"] == "Namespace":
            document["metadata"]["name"] = NAMESPACE
        else:
            document["metadata"]["namespace"] = NAMESPACE
        for subject in document.get("subjects", []):
            subject["namespace"] = NAMESPACE
        if document["kind"] == "Service":
            for port in document["spec"]["ports"]:
                port.pop("nodePort", None)  # an installation on the same cluster has it
        if document["kind"] == "ConfigMap":
            document["data"] |= SETTINGS
        for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            if image := os.environ.get(CONTAINERS.get(container["name"], "")):
                container["image"] = image
        return document

    def apply(self) -> None:
        """Apply everything, as a person does after each change."""
        _apply(self.documents)

    def up(self) -> None:
        """Prepare the share, start everything, and wait until it is ready."""
        try:
            self._prepare_share()
            self.apply()
            for what in ("deployment/azurite", "deployment/nfs-watch-router", "statefulset/nfs-watch"):
                kubectl("rollout", "status", what, "--timeout=240s")
            kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{state()}") from error

    def _prepare_share(self) -> None:
        """Give the volume's folder to the shards' user: most storage classes leave it to root."""
        claim = one(self.documents, "PersistentVolumeClaim", "nfs-watch-share")
        owner = owner_pod(one(self.documents, "Pod", "client"))
        # without the labels that allow no root, which come when everything is applied
        _apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, claim, owner])
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/owner", "--timeout=120s")
        kubectl("delete", "pod", "owner", "--timeout=120s")

    def down(self) -> None:
        kubectl("delete", "namespace", NAMESPACE, "--wait", "--ignore-not-found", "--timeout=240s")

    def client(self, *argv: str, timeout: float = 300) -> Any:
        """Run the client in its pod and return its result."""
        out = kubectl("exec", "-i", "client", "--", "python", "-", *argv, stdin=CLIENT, timeout=timeout)
        return json.loads(out) if out.strip() else None

    def write(self, session: str, numbers: range, seconds: float) -> subprocess.Popen[bytes]:
        """Begin to write the files with these numbers, in the background."""
        what = ["write", session, str(numbers.start), str(numbers.stop), str(seconds)]
        argv = ["exec", "-i", "client", "--", "python", "-", *what]
        writer = subprocess.Popen([KUBECTL, "--namespace", NAMESPACE, *argv], stdin=subprocess.PIPE)
        assert writer.stdin is not None
        writer.stdin.write(CLIENT)
        writer.stdin.close()
        return writer

    def http(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the router, through its Service."""
        said = self.client("http", method, path, *([json.dumps(body)] if body is not None else []))
        return said["status"], said["body"]

    def where(self) -> dict[str, int]:
        """Return each session's shard."""
        status, body = self.http("GET", "/v1/watch/status")
        assert status == 200, body
        return {entry["session"]: entry["shard"] for entry in body["sessions"]}

    def reachable(self) -> list[int]:
        status, body = self.http("GET", "/v1/watch/status")
        assert status == 200, body
        return sorted(entry["shard"] for entry in body["shards"] if entry["reachable"])

    def scale(self, shards: int) -> None:
        """Scale, and wait until exactly this number of shards answers."""
        kubectl("scale", "statefulset/nfs-watch", f"--replicas={shards}")
        eventually(lambda: self.reachable() == list(range(shards)), f"{shards} shards")

    def pod(self, ordinal: int) -> Document:
        found: Document = get("pod", f"nfs-watch-{ordinal}")
        return found

    def ready(self, ordinal: int, *, unlike: str = "") -> bool:
        """Tell whether the shard's pod is ready and has another uid than this."""
        pod = self.pod(ordinal)
        conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
        return pod["metadata"]["uid"] != unlike and conditions.get("Ready") == "True"


def _apply(documents: list[Document]) -> None:
    kubectl("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump_all(documents).encode())


def owner_pod(client: Document) -> Document:
    """Return a pod that makes the shards' user the owner of the share, as root."""
    pod: Document = copy.deepcopy(client)
    pod["metadata"]["name"] = "owner"
    user = pod["spec"].pop("securityContext")
    (container,) = pod["spec"]["containers"]
    give = f"import os; os.chown('/share', {user['runAsUser']}, {user['runAsGroup']})"
    container |= {"name": "owner", "command": ["python", "-c", give], "securityContext": {"runAsUser": 0}}
    del container["envFrom"]
    pod["spec"]["restartPolicy"] = "Never"
    return pod


def client_pod(shards: Document) -> Document:
    """Return the client's pod: the shards' image and share, without the shards' program."""
    pod = pod_of(shards)
    ours = pod["containers"][0]
    container = {
        "name": "client",
        "image": ours["image"],
        "imagePullPolicy": ours["imagePullPolicy"],
        "command": ["python", "-c", "import signal; signal.pause()"],
        "envFrom": ours["envFrom"],
        "securityContext": ours["securityContext"],
        "volumeMounts": [mount for mount in ours["volumeMounts"] if mount["name"] == "share"],
    }
    spec = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": pod["securityContext"],
        "containers": [container],
        "volumes": [volume for volume in pod["volumes"] if volume["name"] == "share"],
    }
    metadata = {"name": "client", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

"""The manifests as `kubectl apply -k` would send them, and the parts of them that tests need."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.need import need
from tests.support.programs import TOP

K8S = TOP / "k8s"
KUBECTL = str(TOP / ".tools/kubectl/bin/kubectl")  # a known version, whatever the machine has
OVERLAYS = ["same-machine", "nfs-v4", "nfs-v3", "try-out"]
NFS = ["nfs-v4", "nfs-v3"]
AZURE = ["same-machine", *NFS]
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
CRDS = {"PodMonitor", "PrometheusRule"}  # the Prometheus operator's kinds, which no schema here knows
UNITS = ["", "Ki", "Mi", "Gi", "Ti"]
Document = dict[str, Any]
_BUILT: dict[str, list[Document]] = {}


def build(folder: Path) -> list[Document]:
    """Build a kustomization; a warning counts as a failure."""
    need(KUBECTL)
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def with_components(folder: Path, overlay: str, *components: str) -> list[Document]:
    """Build an overlay with components, from a folder outside k8s/."""
    top = os.path.relpath(K8S, folder.resolve())
    lines = {
        "resources": [f"{top}/overlays/{overlay}"],
        "components": [f"{top}/components/{one}" for one in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return build(folder)


def built(overlay: str) -> list[Document]:
    """Build an overlay; each overlay is built once."""
    if overlay not in _BUILT:
        _BUILT[overlay] = build(K8S / "overlays" / overlay)
    return _BUILT[overlay]


def one(documents: list[Document], kind: str, name: str) -> Document:
    found = [doc for doc in documents if doc["kind"] == kind and doc["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {[(doc['kind'], doc['metadata']['name']) for doc in documents]}"
    return found[0]


def settings_of(documents: list[Document]) -> dict[str, str]:
    maps = [doc for doc in documents if doc["metadata"]["name"].startswith("nfs-watch-settings-")]
    assert len(maps) == 1
    return {str(key): str(value) for key, value in maps[0]["data"].items()}


def shards_of(documents: list[Document]) -> Document:
    return one(documents, "StatefulSet", "nfs-watch")


def pod_of(workload: Document) -> Document:
    return dict(workload["spec"]["template"]["spec"])


def workloads(documents: list[Document]) -> list[Document]:
    return [doc for doc in documents if "template" in doc.get("spec", {})]


def containers(documents: list[Document]) -> list[Document]:
    return [container for doc in workloads(documents) for container in pod_of(doc)["containers"]]


def quantity(text: str) -> int:
    """Return the bytes of an amount such as 512Mi."""
    match = re.fullmatch(r"(\d+)([KMGT]i)?", text)
    assert match, text
    return int(match[1]) * int(1024 ** UNITS.index(match[2] or ""))

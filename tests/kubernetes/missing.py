"""What the tests on a cluster lack, in one sentence, before anything is built or waited for."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping

from tests.support.image import PROGRAMS
from tests.support.manifests import KUBECTL

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
K3S = "k3s ctr images import"


def load_command(env: Mapping[str, str], path: str = PATH) -> list[str]:
    """Return the command that takes an image's archive into the cluster, without the archive; empty where none is known."""
    default = K3S if shutil.which("k3s", path=path) else ""
    return shlex.split(env.get("CLUSTER_LOAD", default))


def for_the_images(env: Mapping[str, str], path: str = PATH, user: int | None = None) -> str:
    """Say what is missing to build the images and to bring them into the cluster; empty: nothing."""
    load = load_command(env, path)
    if absent := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        return f"Not installed: {', '.join(absent)}. As root, tests/system-packages installs them."
    if (os.geteuid() if user is None else user) != 0:
        return "The images' base is made by debootstrap, which needs root."
    if not load:
        return (
            "CLUSTER_LOAD is not set: the command that takes an image's archive into the cluster, as in "
            f'CLUSTER_LOAD="{K3S}" or CLUSTER_LOAD="kind load image-archive".'
        )
    if shutil.which(load[0], path=path) is None:
        return f"CLUSTER_LOAD names a program that is not there: {load[0]}."
    return ""


def for_the_cluster(env: Mapping[str, str]) -> str:
    """Say what the cluster lacks, or that there is none; empty: nothing."""
    if not (config := env.get("KUBECONFIG")):
        return "KUBECONFIG is not set: the file that names the cluster, for k3s /etc/rancher/k3s/k3s.yaml."
    ask = [KUBECTL, "--request-timeout=10s", "get", "storageclass", "--output", "json"]
    answer = subprocess.run(ask, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = (answer.stderr.strip() or "no answer").splitlines()[-1]
        return f"No cluster answers where KUBECONFIG={config} says: {said}"
    default = "storageclass.kubernetes.io/is-default-class"
    classes = [one["metadata"].get("annotations", {}) for one in json.loads(answer.stdout)["items"]]
    if "true" not in [annotations.get(default) for annotations in classes]:
        return "The cluster has no default storage class, which makes the volume of the overlay try-out."
    return ""

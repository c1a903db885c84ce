"""How many shards there are: N, from a setting or from the StatefulSet's `spec.replicas`."""

import logging
import os
import ssl
import threading
import time
from pathlib import Path
from typing import Protocol

import httpx

from uploader.errors import BadConfiguration
from uploader.telemetry import names

log = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ReplicasUnknown(Exception):
    """The Kubernetes API has not answered yet; the text says why. A later call may succeed."""


class Replicas(Protocol):
    """Where the number of shards comes from."""

    def count(self) -> int:
        """Return the number of shards, 0 or more. Raises ReplicasUnknown before the first answer."""
        ...


class FixedReplicas:
    """A number that does not change while the process runs."""

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"the number of shards is {count}: it must not be negative")
        self._count = count

    def count(self) -> int:
        """Return the number."""
        return self._count


class KubernetesReplicas:
    """`spec.replicas` of one StatefulSet: the number asked for, not the number that is ready.

    Counting ready pods would move sessions at each restart; the specification changes only when someone scales.
    An answer, or a failure, holds for `ttl` seconds. While the API is away the last count holds.
    `timeout`: seconds for connecting and for each read.
    """

    def __init__(
        self,
        statefulset: str,
        *,
        api: str | None = None,
        folder: Path = ACCOUNT,
        ttl: float = 3.0,
        timeout: float = 2.0,
    ) -> None:
        self._statefulset = statefulset
        self._api = api or _api_address()
        self._folder = folder
        self._ttl = ttl
        self._timeout = timeout
        self._refreshing = threading.Lock()
        self._fresh_until = 0.0
        self._count: int | None = None
        self._error: str | None = None

    def count(self) -> int:
        """Return the last count; ask the API first when the count is older than `ttl`.

        Only one thread asks; other threads go on with the last count, and wait only when there is none.
        Raises ReplicasUnknown before the first answer.
        """
        if self._stale() and self._refreshing.acquire(blocking=self._count is None):
            try:
                if self._stale():
                    self._refresh()
            finally:
                self._refreshing.release()
        if self._count is None:
            raise ReplicasUnknown(f"the number of shards is not known yet: {self._error}")
        return self._count

    def _stale(self) -> bool:
        return time.monotonic() >= self._fresh_until

    def _refresh(self) -> None:
        try:
            self._found(self._ask())
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._missed(str(error) or type(error).__name__)
        self._fresh_until = time.monotonic() + self._ttl

    def _found(self, count: int) -> None:
        if count != self._count or self._error:
            log.info(names.REPLICAS_KNOWN, extra={"count": count})
        self._count, self._error = count, None

    def _missed(self, error: str) -> None:
        # One line when the state changes: an API that is away for a day would otherwise fill the log.
        if self._error is None:
            log.warning(names.REPLICAS_UNAVAILABLE, extra={"error": error, "count": self._count})
        self._error = error

    def _ask(self) -> int:
        # The kubelet renews the token, and the CA may change; both are small, so each request reads them.
        namespace = self._read("namespace")
        answer = httpx.get(
            f"{self._api}/apis/apps/v1/namespaces/{namespace}/statefulsets/{self._statefulset}",
            headers={"Authorization": f"Bearer {self._read('token')}"},
            verify=ssl.create_default_context(cafile=self._folder / "ca.crt"),
            timeout=self._timeout,
            trust_env=False,  # a proxy for Azure must not be asked for the cluster's own address
        )
        if answer.status_code != 200:
            raise ValueError(self._refusal(answer.status_code, namespace))
        return _spec_replicas(answer.json())

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text(encoding="ascii").strip()

    def _refusal(self, status: int, namespace: str) -> str:
        what = f"StatefulSet {self._statefulset!r} in namespace {namespace!r}"
        return {
            401: f"the Kubernetes API does not accept the service account's token for the {what} (401)",
            403: f"the service account needs a Role that allows get on the {what} (403)",
            404: f"there is no {what} (404): see NFS_WATCH_STATEFULSET",
        }.get(status, f"the Kubernetes API answers {status} for the {what}")


def replicas(fixed: int | None, statefulset: str) -> Replicas:
    """Choose the source: the fixed number, else, in a pod, the Kubernetes API.

    Raises BadConfiguration when there is neither.
    """
    if fixed is not None:
        return FixedReplicas(fixed)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return KubernetesReplicas(statefulset)
    raise BadConfiguration("NFS_WATCH_REPLICAS is not set: outside Kubernetes it must say how many shards there are")


def _api_address() -> str:
    """Return the API's address from the variables that every container has; that needs no DNS."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _spec_replicas(answer: object) -> int:
    spec = answer.get("spec") if isinstance(answer, dict) else None
    count = spec.get("replicas") if isinstance(spec, dict) else None
    if type(count) is not int or count < 0:  # not isinstance: a bool is an int
        raise ValueError("the Kubernetes API's answer has no usable spec.replicas")
    return count

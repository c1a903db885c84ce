"""Shards as a StatefulSet's pods, with a service account and a number of replicas that a test changes."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.kubernetes.api import Api, spec
from tests.support.programs import Server, free_port, router, shard, wait_for

# A mount namespace of its own: the service account lies where the kubelet puts it, in this process' eyes only.
ACCOUNT = """
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount
shift
exec "$@"
"""


def content(path: str, size: int) -> bytes:
    """Return a file's content, which its path determines."""
    return hashlib.shake_256(path.encode()).digest(size)


class Pods:
    """Shard k on 127.0.2.k, and a router; both ask the stand-in API for the number of shards."""

    def __init__(self, folder: Path, api: Api, connection: str, **settings: object) -> None:
        self.folder = folder
        self.api = api
        self.connection = connection
        self.settings = settings
        self.root = folder / "share"
        self.root.mkdir()
        self.account = api.account(folder / "account")
        self.port = free_port()
        self.shards: dict[int, Server] = {}
        self.router = self._in_a_pod(router(folder, f"http://127.0.2.{{ordinal}}:{self.port}", replicas=""))

    def _in_a_pod(self, server: Server) -> Server:
        namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        server.argv = [*namespace, "sh", "-ec", ACCOUNT, "pod", str(self.account), *server.argv]
        server.env |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.api.port)}
        return server

    def pod(self, ordinal: int, host: str | None = None) -> Server:
        """Make a shard (not started); with another host two shards of one ordinal can run at a time."""
        host = host or f"127.0.2.{ordinal}"
        settings = {"replicas": "", "host": host, "port": self.port, "settle_empty": 2, **self.settings}
        server = self._in_a_pod(shard(self.folder, self.root, self.connection, ordinal, **settings))
        server.port, server.url = self.port, f"http://{host}:{self.port}"
        return server

    def scale(self, count: int) -> None:
        """Do what the StatefulSet's controller does."""
        self.api.body = spec(count)
        for ordinal in [ordinal for ordinal in self.shards if ordinal >= count]:
            gone = self.shards.pop(ordinal)
            gone.signal(signal.SIGTERM)
            gone.wait(5)
        for ordinal in range(count):
            if ordinal not in self.shards:
                self.shards[ordinal] = self.pod(ordinal)
                self.shards[ordinal].up()

    def kill(self) -> None:
        """Kill every program."""
        for server in [self.router, *self.shards.values()]:
            server.kill()

    def post(self, what: str, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.router.url}/v1/watch/{what}", json=fields, timeout=30)

    def start(self, session: str) -> int:
        """Start a session and return its shard."""
        answer = self.post("start", session=session)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["shard"])

    def where(self) -> dict[str, int]:
        """Return each session's shard."""
        answer = httpx.get(f"{self.router.url}/v1/watch/status", timeout=10)
        assert answer.status_code == 200, answer.text
        return {one["session"]: one["shard"] for one in answer.json()["sessions"]}

    def settles(self, homes: dict[str, int]) -> None:
        """Wait until each session is on exactly the shard given here."""
        wait_for(lambda: self.where() == homes, f"the sessions at {homes}", interval=0.2)

    def write(self, session: str, name: str, size: int) -> str:
        """Move a finished file into place; return the blob's name."""
        path = f"{session}/{name}"
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".{target.name}")
        hidden.write_bytes(content(path, size))
        hidden.rename(target)
        return path

    def left(self) -> list[str]:
        """List the sessions' files that are still on the share, claims and completed ones included."""
        files = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path) for path in files if path.parts[0] != ".nfs-watch")

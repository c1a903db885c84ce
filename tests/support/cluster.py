"""A blob endpoint, N shards and a router together, on one share."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.programs import Server, azurite, free_port, router, shard, wait_for


@dataclass
class Cluster:
    """Running programs; `connection` is the blob endpoint's."""

    root: Path
    connection: str
    shards: list[Server]
    router: Server

    def start(self, name: str, **fields: object) -> Path:
        """Start a session through the router and return its folder."""
        response = httpx.post(f"{self.router.url}/v1/watch/start", json={"session": name, **fields}, timeout=60)
        assert response.status_code == 201, response.text
        return self.root / str(response.json()["folder"])

    def clear(self) -> None:
        """Stop every session at once and wait until none is left."""
        url = f"{self.router.url}/v1/watch"

        def sessions() -> list[str]:
            return [one["session"] for one in httpx.get(f"{url}/status", timeout=60).json()["sessions"]]

        for name in sessions():
            httpx.post(f"{url}/stop", json={"session": name, "drain": False}, timeout=60)
        wait_for(lambda: not sessions(), "the sessions to be swept")


@contextlib.contextmanager
def cluster(
    folder: Path, count: int, connection: str = "", under: Sequence[str] = (), **settings: object
) -> Iterator[Cluster]:
    """Run them; settings are those of the shards. Shard k listens on 127.0.1.k, so that one URL fits them all.

    `connection`: that of an endpoint that runs already; without one it is an Azurite's. `under`: a command that runs
    each shard.
    """
    root = folder / "share"
    root.mkdir()
    port = free_port()
    with contextlib.ExitStack() as stack:
        connection = connection or stack.enter_context(azurite(folder))
        shards = []
        for ordinal in range(count):
            host = f"127.0.1.{ordinal}"
            one = shard(folder, root, connection, ordinal, replicas=count, host=host, port=port, **settings)
            one.port, one.url = port, f"http://{host}:{port}"
            one.argv = [*under, *one.argv]
            stack.callback(one.kill)
            shards.append(one)
        front = router(folder, f"http://127.0.1.{{ordinal}}:{port}", replicas=count)
        stack.callback(front.kill)
        for program in [*shards, front]:  # start all before waiting: each takes a second or two
            program.start()
        for program in [*shards, front]:
            wait_for(lambda program=program: program.answers("/readyz"), "a program to be ready")
        yield Cluster(root, connection, shards, front)

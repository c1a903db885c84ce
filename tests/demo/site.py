"""Two shards and a router on this machine, with a folder as the share; the blob store is given."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import httpx

from tests.support.programs import Server, free_port, router, shard

SHARDS = 2
OFFSETS = (0, 1, *range(10, 10 + SHARDS))


class Site:
    """Programs that run until the stack is closed. The router is at `url`."""

    def __init__(
        self, folder: Path, stack: contextlib.ExitStack, connection: str, port: int = 0, **settings: object
    ) -> None:
        """`port` is the router's, see free_ports; `settings` are the shards'."""
        self.connection = connection
        self.share = folder / "share"
        self.share.mkdir()
        port = port or free_port(OFFSETS, 20)
        shards = f"http://127.0.0.1:{(port + 10) // 10}{{ordinal}}"
        both: dict[str, Any] = {"replicas": SHARDS, **settings}
        self.shards = [
            shard(folder, self.share, connection, ordinal, port=port + 10 + ordinal, **both)
            for ordinal in range(SHARDS)
        ]
        self.router = router(folder, shards, port=port, replicas=SHARDS)
        self.url = self.router.url
        self.programs = {"shard 0": self.shards[0], "shard 1": self.shards[1], "router": self.router}
        for program in self.programs.values():
            stack.callback(program.kill)
            program.start()
        for program in self.programs.values():
            program.ready()

    def ask(self, name: str, at: Server | None = None, /, **fields: object) -> httpx.Response:
        """Ask the router, or a shard; with fields the request is a POST."""
        url = f"{(at or self.router).url}/v1/watch/{name}"
        with httpx.Client(trust_env=False, timeout=40) as client:
            return client.post(url, json=fields) if fields else client.get(url)

    def call(self, name: str, **fields: object) -> dict[str, Any]:
        """Make a call to the router that must succeed."""
        reply = self.ask(name, **fields)
        assert reply.is_success, f"{name} was answered with {reply.status_code}: {reply.text}"
        return dict(reply.json())

    def session(self, name: str) -> dict[str, Any]:
        """Return the status of one session, or nothing when the answer does not list it."""
        return next((one for one in self.call("status")["sessions"] if one["session"] == name), {})

    def records(self) -> list[str]:
        """Return the names of the files in the records' folder."""
        return sorted(path.name for path in (self.share / ".nfs-watch/sessions").iterdir())

    def ended(self) -> dict[str, Server]:
        """Return the programs that have ended."""
        return {name: one for name, one in self.programs.items() if one.process and one.process.poll() is not None}


def free_ports(first: int) -> int:
    """Return P, a multiple of 20 from `first` on, with P, P+1 and, for shard N, P+10+N free."""
    for port in range(first, first + 1000, 20):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for offset in OFFSETS:
                listener = stack.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port + offset))
            return port
    raise AssertionError(f"no free ports between {first} and {first + 1000}")


def files_in(folder: Path) -> list[str]:
    """Return the files that lie below a folder now, under whatever name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())

"""Measure uploads beside thousands of viewers: python -m tests.scaling.viewers [viewers].

For each program that is watched (the shard itself, and the router in front of it): small files are uploaded without and
with viewers, in turns; /livez is asked all the while; the log is weighed.
"""

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.bench.endpoint import Discard, discard
from tests.scaling.__main__ import cpu
from tests.support.programs import Server, free_port, router, shard

FILES, SIZE, TURNS = 2000, 20_000, 3
WATCH = b"GET /v1/watch/events HTTP/1.1\r\nHost: x\r\n\r\n"


def watch(port: int, count: int) -> None:
    """Be so many viewers: connect, read all that comes, print how many were taken, and go on until killed."""
    ready, taken, seen = selectors.DefaultSelector(), 0, set()
    for number in range(count):
        one = socket.create_connection(("127.0.0.1", port), 60)
        one.sendall(WATCH)
        one.setblocking(False)
        ready.register(one, selectors.EVENT_READ, number)
    while True:
        for key, _ in ready.select(1.0):
            data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
            if key.data not in seen:
                seen.add(key.data)
                taken += data.startswith(b"HTTP/1.1 200")
                if len(seen) == count:
                    print(taken, flush=True)
            if not data:
                ready.unregister(key.fileobj)


@contextmanager
def viewers(port: int, count: int) -> Iterator[int]:
    """Have so many viewers in a process of their own; yields how many were taken."""
    argv = ["bash", "-c", 'ulimit -n $(ulimit -Hn); exec "$@"', "bash"]
    argv += [sys.executable, "-m", "tests.scaling.viewers", "watch", str(port), str(count)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


class Alive(threading.Thread):
    """Asks /livez twice a second, as a probe does: each time over a connection of its own."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.watched = False
        self.took: dict[bool, list[float]] = {False: [], True: []}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            watched, began = self.watched, time.monotonic()
            httpx.get(f"{self.server.url}/livez", timeout=60, trust_env=False).raise_for_status()
            self.took[watched].append(time.monotonic() - began)


def uploaded(one: Server, root: Path, name: str) -> tuple[float, float]:
    """Upload FILES files in a session; return files a second, and CPU in ms a file."""
    folder = root / name
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.bin").write_bytes(os.urandom(SIZE))
    time.sleep(6)  # they settle
    before, began = cpu(one), time.monotonic()
    with httpx.Client(trust_env=False, timeout=60) as client:
        client.post(f"{one.url}/v1/watch/start", json={"session": name}).raise_for_status()
        while True:
            done = sum(entry.name.endswith(".completed") for entry in os.scandir(folder))
            if done == FILES:
                break
            time.sleep(0.05)
        took = time.monotonic() - began
        used = (cpu(one) - before) / FILES * 1000
        client.post(f"{one.url}/v1/watch/stop", json={"session": name, "drain": False}).raise_for_status()
    return FILES / took, used


def resident(one: Server) -> float:
    """Return the MiB of memory that a process has."""
    return int(Path(f"/proc/{one.pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def measure(stack: ExitStack, at: str, count: int, endpoint: Discard, folder: Path) -> None:
    """Print what viewers at the shard or at the router cost."""
    root = folder / f"share-{at}"
    root.mkdir()
    port = free_port()
    one = shard(folder, root, endpoint.connection_string, 0, port=port, retention=86400, max_sessions=100)
    one.output = folder / f"{at}-shard.log"
    stack.callback(one.kill)
    one.up()
    watched = one
    if at == "router":
        front = router(folder, f"http://127.0.{{ordinal}}.1:{port}")
        stack.callback(front.kill)
        front.up()
        watched = front
    rates: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    alive = Alive(watched)
    alive.start()
    quiet = 0.0
    for turn in range(TURNS):
        rates[False].append(uploaded(one, root, f"{at}-without-{turn}"))
        alone = resident(watched)
        with viewers(watched.port, count) as taken:
            alive.watched = True
            time.sleep(3)
            size, began = watched.output.stat().st_size, time.monotonic()
            time.sleep(5)
            quiet = max(quiet, (watched.output.stat().st_size - size) / (time.monotonic() - began))
            rates[True].append(uploaded(one, root, f"{at}-with-{turn}"))
            crowded = resident(watched)
            descriptors = len(os.listdir(f"/proc/{watched.pid}/fd"))
            there = taken
        alive.watched = False
        time.sleep(1)
    alive.over.set()
    alive.join()
    print(f"{count} viewers of the {at}, {there} taken, {descriptors} descriptors, {alone:.0f} -> {crowded:.0f} MiB")
    for some, label in ((False, "without"), (True, "with")):
        files, used = zip(*rates[some], strict=True)
        print(
            f"    {label:8} {statistics.median(files):.0f} files/s ({min(files):.0f}-{max(files):.0f}), CPU {statistics.median(used):.2f} ms a file"
        )
    for some, label in ((False, "without"), (True, "with")):
        took = sorted(alive.took[some])
        print(
            f"    /livez {label} viewers: median {took[len(took) // 2]:.3f} s, at most {took[-1]:.3f} s of {len(took)}"
        )
    print(f"    log {quiet:.0f} B/s while nothing is sent", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["watch"]:
        watch(int(sys.argv[2]), int(sys.argv[3]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(json.dumps({"files": FILES, "size": SIZE, "turns": TURNS}))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, discard(Path(folder), tls=False) as endpoint:
        for at in ("shard", "router"):
            with ExitStack() as stack:
                measure(stack, at, count, endpoint, Path(folder))


if __name__ == "__main__":
    main()

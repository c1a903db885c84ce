"""Measure this machine's times for docs/scaling.md and print its tables: python -m tests.scaling."""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx

from tests.scaling import model
from tests.scaling.shards import standing_in
from tests.support.programs import Server, router
from uploader.cluster.placement import rank
from uploader.session import Session, State
from uploader.sessions.records import Records

TURNS = 5
WATCHED = 8.0  # seconds


def cpu(program: Server) -> float:
    """Return the seconds of CPU time that a process has had."""
    words = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def status(program: Server) -> str:
    """Ask for the status of all shards."""
    took, away, size, before = [], 0, 0, cpu(program)
    for _ in range(TURNS):
        began = time.monotonic()
        answer = httpx.get(f"{program.url}/v1/watch/status", timeout=60, trust_env=False)
        took.append(time.monotonic() - began)
        away = max(away, sum(not one["reachable"] for one in answer.json()["shards"]))
        size = len(answer.content)
    used = (cpu(program) - before) / TURNS
    return f"status {min(took):.2f}-{max(took):.2f} s, CPU {used:.2f} s, {size / 1000:.0f} kB, {away} away"


def watched(program: Server) -> str:
    """Watch the event stream for a while, as a browser does."""
    events, size, before, began = 0, 0, cpu(program), time.monotonic()
    with httpx.stream("GET", f"{program.url}/v1/watch/events", timeout=60, trust_env=False) as stream:
        for line in stream.iter_lines():
            events += line.startswith("data:")
            size += len(line)
            if time.monotonic() - began > WATCHED:
                break
    took = time.monotonic() - began
    busy = (cpu(program) - before) / took
    return f"stream {events / took:.1f} events/s, {size / took / 1000:.0f} kB/s, CPU {busy:.0%}"


def refused(program: Server) -> str:
    """Start a session when every shard is full."""
    began = time.monotonic()
    answer = httpx.post(f"{program.url}/v1/watch/start", json={"session": "one-more"}, timeout=60, trust_env=False)
    return f"refused with {answer.status_code} in {time.monotonic() - began:.2f} s"


def of_router(shards: int, uploading: int) -> None:
    """Print the router's cost for this many shards."""
    with tempfile.TemporaryDirectory() as folder, standing_in(shards, uploading) as others:
        program = router(Path(folder), others.url, replicas=shards)
        try:
            program.up()
            print(f"{shards} shards, {uploading} files each: {refused(program)}; {status(program)}", flush=True)
            print(f"    {watched(program)}", flush=True)
        finally:
            program.kill()


def of_records(sessions: int) -> None:
    """Print the time to read the records once, on a local disk."""
    with tempfile.TemporaryDirectory() as folder:
        one = Session("", State.ACTIVE, 5, "2026-01-01T00:00:00.000Z")
        for number in range(sessions):
            (Path(folder) / f"run-{number}.json").write_bytes(replace(one, name=f"run-{number}").to_json())
        records = Records(Path(folder), 0)
        before = time.process_time()
        for _ in range(TURNS):
            records._read()
        print(f"{sessions} records: CPU {(time.process_time() - before) / TURNS * 1000:.1f} ms a reading")


def of_rank(shards: int) -> None:
    """Print the time to rank the shards for a name."""
    before, turns = time.process_time(), 20_000 // shards
    for number in range(turns):
        rank(f"run-{number}", shards)
    print(f"{shards} shards: CPU {(time.process_time() - before) / turns * 1000:.2f} ms a rank")


def main() -> None:
    """Print all tables."""
    for sessions in (10, 100, 1000, 10_000):
        of_records(sessions)
    for shards in (10, 100, 300, 1000):
        of_rank(shards)
        for uploading in (4, 32):
            of_router(shards, uploading)
    print("\n".join(model.table(model.ALWAYS, model.Shard(0, 0))))


if __name__ == "__main__":
    main()

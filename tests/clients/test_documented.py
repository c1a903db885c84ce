"""What docs/api.md shows is run word for word: its curl calls, and its clients, while a shard is killed under them."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from tests.clients.generators import API, blocks, printed, run, workplace
from tests.clients.relay import Relay
from tests.endpoint.faults import Hold
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import need
from tests.support.cluster import Cluster, cluster
from tests.support.programs import Program, wait_for


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as it:
        yield it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("documented"), 1, endpoint.connection_string, max_sessions=8) as it:
        yield it


def test_each_curl_call_in_the_documentation_answers_what_stands_below_it(site: Cluster, tmp_path: Path) -> None:
    """A reader who copies docs/api.md into a shell sees the answers that it shows."""
    need("curl", "bash")
    address, *calls = blocks("sh")
    assert address.startswith("export NFS_WATCH=http://")
    env = {**os.environ, "NFS_WATCH": site.router.url}
    shown = {call: json.loads(answer) for call, answer in _pairs()}
    assert len(shown) >= 5
    for call in calls:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", call],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            timeout=240,
            check=True,
        )
        if call in shown:
            assert _shape(json.loads(done.stdout)) == _shape(shown[call]), call
        elif "/events" in call:
            assert done.stdout.startswith(b"retry: "), call
        else:
            assert done.stdout, call  # what grep has found


def _pairs() -> list[tuple[str, str]]:
    pattern = r"^```sh\n((?:(?!```).)*?)^```\n```json\n(.*?)^```$"
    return re.findall(pattern, API.read_text(), re.MULTILINE | re.DOTALL)


def _shape(value: Any, key: str = "") -> Any:
    """Return the answer with its times replaced, for these depend on the moment."""
    if isinstance(value, dict):
        return {key: _shape(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_shape(part, key) for part in value]
    return "..." if key in {"started_at", "version", "endpoint", "room"} else value


CLIENTS = {
    "python": [sys.executable, "-W", "error", "client.py"],
    "ts": ["node", "client.mjs"],
    "shell": ["bash", "client.sh"],
}
CONTENT = b"x" * 100_000


@dataclass
class Told:
    """How a client ended, and what it said of its session."""

    session: str
    code: int
    said: str
    statuses: list[int]  # of the answers that it got


@pytest.fixture(scope="module")
def made(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the clients that docs/api.md prints into a folder, and compile what has to be."""
    folder = tmp_path_factory.mktemp("clients")
    env = workplace(folder, site.router.url)
    (folder / "finished.bin").write_bytes(CONTENT)
    for language, name in {"python": "client.py", "ts": "client.mts", "shell": "client.sh"}.items():
        (text,) = blocks(language)
        assert len([line for line in text.splitlines() if line.strip()]) <= 32
        (folder / name).write_text(text)
    run(printed("openapi-typescript"), folder, env)
    run(printed("tsc"), folder, env)
    return folder


@pytest.fixture(scope="module", params=["sent", "left"])
def ended(site: Cluster, endpoint: Endpoint, made: Path, request: pytest.FixtureRequest) -> dict[str, Told]:
    """Run the clients at once, and kill the shard while it sends their files; it comes back when each was told so.

    "left": a link lies in each session's folder, which cannot be sent.
    """
    need("curl", "bash")
    case: str = request.param
    names = {client: f"{case}-{client}" for client in CLIENTS}
    if case == "left":
        for name in names.values():
            (site.root / name).mkdir()
            (site.root / name / "link.bin").symlink_to("nowhere")
    programs: dict[str, Program] = {}
    gate = threading.Event()
    with ExitStack() as stack:
        stack.callback(gate.set)
        relays = {client: stack.enter_context(Relay(site.router.url)) for client in CLIENTS}
        held = endpoint.faults.add(Hold(gate), Operation.PUT_BLOB, times=len(CLIENTS))
        for client, argv in CLIENTS.items():
            env = {"NFS_WATCH": relays[client].url, "SHARE": str(site.root)}
            log = made / f"{names[client]}.log"
            programs[client] = Program(["env", "-C", str(made), *argv, names[client]], log, env)
            stack.callback(programs[client].kill)
            programs[client].start()
        wait_for(lambda: held.hits == len(CLIENTS), "the files of all clients to be in flight")
        site.shards[0].kill()
        wait_for(lambda: all(503 in relay.statuses for relay in relays.values()), "each client to be told")
        assert not [client for client, one in programs.items() if one.process and one.process.poll() is not None]
        gate.set()
        site.shards[0].up()
        return {
            client: Told(names[client], program.wait(), program.log(), relays[client].statuses)
            for client, program in programs.items()
        }


@pytest.mark.parametrize("client", CLIENTS)
def test_a_documented_client_tells_the_truth_though_a_shard_was_killed(
    ended: dict[str, Told], site: Cluster, client: str
) -> None:
    """Success means that every file is in the store; one that was not sent is named, and makes it a failure."""
    told = ended[client]
    with ContainerClient.from_connection_string(site.connection, "uploads") as container:
        assert container.download_blob(f"{told.session}/finished.bin").readall() == CONTENT
    assert 503 in told.statuses
    if (site.root / told.session / "link.bin").is_symlink():
        assert told.code != 0, told.said
        assert "link.bin" in told.said
        assert "all sent" not in told.said
        assert "files sent" not in told.said
    else:
        assert told.code == 0, told.said
        assert f"{told.session}/.receipts/" in told.said

"""The command nfs-watch against the real programs, as people and programs use it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tests.command.calling import begun, call, lines, on_a_terminal, store
from tests.support.cluster import Cluster, cluster
from tests.support.programs import free_port, wait_for
from uploader.version import VERSION


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("command"), 2, max_sessions=50) as it:
        yield it


def fill(site: Cluster, name: str, count: int = 3, size: int = 1000) -> Path:
    """Start a session by the command, and put files into its folder."""
    done = call(site.router.url, "start", name)
    assert done.returncode == 0, done.stderr
    folder = site.root / name
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(os.urandom(size))
    return folder


def ended(site: Cluster, name: str) -> None:
    done = call(site.router.url, "stop", name, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_session_is_started_followed_and_stopped(site: Cluster) -> None:
    """Each call says what it did; the end says how many files were sent; exit code 0: all of them."""
    url = site.router.url
    fill(site, "whole")
    running = call(url, "status", "whole")
    assert running.returncode == 0
    assert running.stdout.startswith("SESSION")
    stopped = call(url, "stop", "whole", "--wait")
    assert stopped.returncode == 0, stopped.stderr
    assert "whole has ended: 3 files sent, 2.93 KiB" in stopped.stdout
    assert "receipts: whole/.receipts/" in stopped.stdout
    assert "whole ended, 3/3 files, 2.93 KiB of 2.93 KiB" in stopped.stderr  # plain lines: stderr is a file
    assert "\x1b" not in stopped.stdout + stopped.stderr
    assert "whole has ended" in call(url, "status", "whole").stdout
    assert call(url, "wait", "whole").returncode == 0
    assert "whole" in call(url, "results").stdout


def test_start_says_where_the_files_go_and_makes_a_name_where_none_is_given(site: Cluster) -> None:
    done = call(site.router.url, "start", "--shard", "1")
    name = done.stdout.split()[0]
    assert (done.returncode, done.stdout) == (0, f"{name} runs on shard 1\nfolder: {name}\n"), done.stderr
    assert name.startswith("00-session-")
    assert (site.root / name).is_dir()
    ended(site, name)


def test_what_is_left_behind_is_named_and_the_exit_code_is_1(site: Cluster) -> None:
    """A link is never sent: its path and the reason stand in the summary, control characters as escapes."""
    folder = fill(site, "left")
    (folder / "link\n.bin").symlink_to("nowhere")
    wait_for(lambda: call(site.router.url, "files", "left", "--state", "failed", "--json").stdout, "the failure")
    listed = call(site.router.url, "files", "left", "--state", "failed")
    assert "link\\n.bin" in listed.stdout
    done = call(site.router.url, "stop", "left", "--wait")
    assert done.returncode == 1
    assert "1 files are left behind on the share, 1 of them after a failure:" in done.stdout
    assert "link\\n.bin" in done.stdout
    assert call(site.router.url, "wait", "left").returncode == 1
    (result,) = [one for one in lines(call(site.router.url, "results", "--json").stdout) if one["session"] == "left"]
    assert result["files"]["left_behind"] == 1


def test_retry_has_failed_files_tried_at_once(site: Cluster) -> None:
    """All of a session's or one of them; a file that has not failed is refused."""
    url, folder = site.router.url, fill(site, "again", 0)
    for name in "one.bin", "two.bin":
        (folder / name).symlink_to("nowhere")
    wait_for(lambda: len(lines(call(url, "files", "again", "--state", "failed", "--json").stdout)) == 2, "the failures")
    done = call(url, "retry", "again")
    shard = json.loads(call(url, "retry", "again", "--path", "one.bin", "--json").stdout)
    assert shard["session"] == "again"
    assert shard["files"] == 1
    assert (done.returncode, done.stdout) == (0, f"again: 2 files are tried at once on shard {shard['shard']}\n")
    refused = call(url, "retry", "again", "--path", "three.bin")
    assert (refused.returncode, "unknown-file" in refused.stderr) == (4, True), refused.stderr
    for name in "one.bin", "two.bin":
        (folder / name).unlink()
    ended(site, "again")


def test_files_kept_by_a_stopped_session_end_the_wait_with_1(site: Cluster) -> None:
    """Nobody else may ever end it: a `.completed` file whose blob is not there."""
    folder = fill(site, "kept", 0)
    (folder / "x.completed").write_bytes(b"not sent")
    done = call(site.router.url, "stop", "kept", "--wait")
    assert done.returncode == 1
    assert "kept has stopped, and does not end before somebody deals with the files that are kept:" in done.stdout
    assert "x.completed" in done.stdout
    (folder / "x.completed").unlink()
    assert call(site.router.url, "wait", "kept").returncode == 0


def test_every_call_writes_json(site: Cluster) -> None:
    """One document each; wait, files and results write one a line; errors are a line of JSON on stderr."""
    url = site.router.url
    begun_ = json.loads(call(url, "start", "jsonic", "-e", ".bin", "--json").stdout)
    assert begun_["folder"] == "jsonic"
    (site.root / "jsonic" / "a.bin").write_bytes(b"x")
    assert json.loads(call(url, "status", "--json").stdout).keys() >= {"sessions", "shards"}
    stopped, *changes = lines(call(url, "stop", "jsonic", "--wait", "--json").stdout)
    assert stopped["session"] == "jsonic"
    assert changes[-1]["state"] == "ended"
    assert changes[-1]["result"]["files"]["sent"] == 1
    compared = json.loads(call(url, "verify", "jsonic", "--json", env=store(site)).stdout)
    assert (compared["good"], compared["fine"], compared["expected"], compared["wrong"]) == (True, 1, 1, [])
    refused = call(url, "stop", "never", "--json")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert json.loads(refused.stderr)["code"] == "unknown-session"
    away = call(f"http://127.0.0.1:{free_port()}", "--patience", "0", "status", "--json")
    assert (away.returncode, json.loads(away.stderr)["code"]) == (3, "not-reachable")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["stop"], 2, "Missing argument"),
        (["start", "../x"], 2, "session"),
        (["start", "x", "-e", ".completed"], 2, ".completed"),
        (["--url", "ftp://x", "status"], 2, "NFS_WATCH_URL"),
        (["stop", "never"], 4, "there is no session never (unknown-session)"),
        (["wait", "never"], 4, "unknown-session"),
        (["files", "never"], 4, "unknown-session"),
        (["retry", "never"], 4, "unknown-session"),
        (["verify", "whatever"], 4, "unknown-session"),
    ],
)
def test_a_refusal_is_one_line_and_has_its_exit_code(site: Cluster, arguments: list[str], code: int, said: str) -> None:
    done = call(site.router.url, *arguments, env=store(site))
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if code == 4:
        assert done.stderr.count("\n") == 1


def test_a_second_start_is_refused(site: Cluster) -> None:
    fill(site, "twice", 0)
    done = call(site.router.url, "start", "twice")
    assert done.returncode == 4
    assert "already-active" in done.stderr
    ended(site, "twice")


def test_a_service_that_is_away_is_named_and_the_exit_code_is_3() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = call(url, "--patience", "1", "status")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert url in done.stderr
    assert "nothing listens there" in done.stderr


def test_what_is_not_nfs_watch_is_not_reachable(site: Cluster) -> None:
    """Another web server at that address."""
    azurite = site.connection.partition("BlobEndpoint=")[2].rpartition("/")[0]
    done = call(azurite, "--patience", "0", "status")
    assert done.returncode == 3, done.stderr
    assert azurite in done.stderr


def test_wait_survives_kills_of_shard_and_router(site: Cluster, tmp_path: Path) -> None:
    """It goes on asking as long as it takes, says why there is no answer, and ends with what was sent."""
    folder = fill(site, "killed")
    waiting = begun(site, tmp_path / "wait.log", "wait", "killed")
    wait_for(lambda: "killed active" in waiting.log(), "the first line")
    for program in [*site.shards, site.router]:
        program.kill()
    wait_for(lambda: "no answer, asking again: nothing listens there" in waiting.log(), "the line about the router")
    (folder / "more.bin").write_bytes(b"more")
    site.router.start()
    wait_for(lambda: waiting.log().count("no answer, asking again: ") >= 2, "the line about the shards")
    for program in site.shards:
        program.start()
    assert call(site.router.url, "stop", "killed").returncode == 0  # asks again by itself, too
    assert waiting.wait() == 0, waiting.log()
    assert "killed has ended: 4 files sent" in waiting.log()


def test_a_start_whose_answer_was_lost_is_repeated_and_is_ours(site: Cluster) -> None:
    """The first try is carried out, and its connection is cut before the answer: the second one meets its session."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        way = threading.Thread(target=_lose_the_first_answer, args=(listener, site.router.port))
        way.start()
        done = call(f"http://127.0.0.1:{listener.getsockname()[1]}", "start", "lost-answer")
        way.join()
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["folder: lost-answer"]), done.stderr
    ended(site, "lost-answer")


def _lose_the_first_answer(listener: socket.socket, port: int) -> None:
    """Hand on start, start again, and the status; each on a connection of its own."""
    for number in range(3):
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(_message(client))
            answer = _message(server)
            if number:
                client.sendall(answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))


def _message(side: socket.socket) -> bytes:
    """Read one request or answer."""
    message = b""
    while True:
        message += side.recv(65536)
        head, empty, body = message.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if empty and len(body) >= int(length[1] if length else 0):
            return message


def test_a_terminal_shows_a_bar_for_each_session(site: Cluster) -> None:
    for name in ("bar-1", "bar-2"):
        fill(site, name)
        assert call(site.router.url, "stop", name).returncode == 0
    code, said = on_a_terminal(site.router.url, "wait", "bar-1", "bar-2")
    assert code == 0, said
    assert "━━━━" in said
    for name in ("bar-1", "bar-2"):
        assert name in said
        assert f"{name} has ended: 3 files sent" in said
    assert "100% 3/3 files  2.93 KiB" in said


def test_control_c_leaves_the_session_alone(site: Cluster, tmp_path: Path) -> None:
    fill(site, "left-alone", 0)
    waiting = begun(site, tmp_path / "wait.log", "wait", "left-alone")
    wait_for(lambda: "left-alone active" in waiting.log(), "the first line")
    waiting.signal(signal.SIGINT)
    assert waiting.wait() == 130
    assert "left-alone: it goes on; nfs-watch wait left-alone follows it again" in waiting.log()
    assert "Traceback" not in waiting.log()
    assert "left-alone  active" in call(site.router.url, "status").stdout
    ended(site, "left-alone")


def test_verify_names_what_is_missing_and_what_was_changed(site: Cluster) -> None:
    """Each blob is compared; one that was written again with the same content is fine; the exit code is 1."""
    fill(site, "checked", 5)
    ended(site, "checked")
    good = call(site.router.url, "verify", "checked", env=store(site))
    assert (good.returncode, good.stdout) == (0, "checked: 5 fine, of 5 receipts, in uploads\n"), good.stderr
    with ContainerClient.from_connection_string(site.connection, "uploads") as container:
        container.delete_blob("checked/0.bin")
        container.upload_blob("checked/1.bin", os.urandom(1000), overwrite=True)
        container.upload_blob("checked/2.bin", b"short", overwrite=True)
        again = container.get_blob_client("checked/3.bin")
        metadata = again.get_blob_properties().metadata
        container.upload_blob("checked/3.bin", again.download_blob().readall(), overwrite=True, metadata=metadata)
    bad = call(site.router.url, "verify", "checked", env=store(site))
    assert bad.returncode == 1
    assert "2 fine, 1 missing, 2 changed, of 5 receipts" in bad.stdout
    assert sorted(line.split(maxsplit=1) for line in bad.stdout.splitlines()[2:]) == [
        ["checked/0.bin", "missing"],
        ["checked/1.bin", "changed: other content"],
        ["checked/2.bin", "changed: 5 bytes instead of 1000"],
    ]


def test_verify_compares_a_session_that_goes_on(site: Cluster) -> None:
    """Its receipts come from the shard; of a name that was used twice only the newest content counts."""
    folder = fill(site, "living", 1)
    compare = ("verify", "living", "--json")
    wait_for(lambda: json.loads(call(site.router.url, *compare, env=store(site)).stdout)["fine"] == 1, "the receipt")
    wait_for(lambda: not any(folder.iterdir()), "the sweep")
    (folder / "0.bin").write_bytes(b"other content")
    found = wait_for(
        lambda: (said := json.loads(call(site.router.url, *compare, env=store(site)).stdout))["superseded"] and said,
        "the second receipt",
    )
    assert (found["good"], found["fine"], found["wrong"], found["expected"]) == (True, 1, [], None)
    ended(site, "living")


def test_verify_changes_nothing_in_the_store_and_says_what_is_missing_there(site: Cluster) -> None:
    """Another container: it is not made, and the message names it."""
    fill(site, "elsewhere", 1)
    ended(site, "elsewhere")
    done = call(site.router.url, "verify", "elsewhere", env=store(site) | {"NFS_WATCH_CONTAINER": "another"})
    assert done.returncode == 2
    assert "'another' does not exist" in done.stderr
    with ContainerClient.from_connection_string(site.connection, "another") as container:
        assert not container.exists()
    unset = call(site.router.url, "verify", "elsewhere")
    assert unset.returncode == 2
    assert "NFS_WATCH_CONTAINER is not set" in unset.stderr


def test_status_counts_the_shards(site: Cluster) -> None:
    done = call(site.router.url, "status")
    assert done.returncode == 0
    assert [line.split()[:2] for line in done.stdout.splitlines()[-2:]] == [["0", "reachable"], ["1", "reachable"]]


def test_the_version_is_told_and_the_help_has_the_exit_codes() -> None:
    assert call("", "--version").stdout == f"nfs-watch {VERSION}\n"
    said = " ".join(call("", "--help").stdout.split())
    assert "Exit codes: 0 all sent; 1 something left behind" in said


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("router.__main__", {"typer", "azure"}),
        ("uploader.__main__", {"typer"}),
        ("router.command.__main__", {"azure", "starlette", "opentelemetry", "pydantic"}),
    ],
)
def test_no_program_pays_for_what_another_needs(module: str, without: set[str]) -> None:
    """On a small device each of these takes a part of a second to import."""
    code = f"import {module}, sys; print({without!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

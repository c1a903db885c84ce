"""One share, one destination: a second store on the share would divide each session between two."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.endpoint.server import Endpoint
from tests.share.test_entry import ODD
from tests.support.programs import Server, shard, wait_for
from uploader.errors import BadConfiguration
from uploader.share.destination import NAME, Destination, destination, settle
from uploader.share.mount import OWN

HERE = Destination("https://a.blob.core.windows.net", "uploads", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "share" / OWN).mkdir(parents=True)
    return tmp_path / "share"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with ExitStack() as stack:
        yield stack.enter_context(Endpoint())


@pytest.mark.parametrize(
    "url",
    [
        "https://a.blob.core.windows.net",
        "https://A.blob.core.windows.NET:443/",
        "https://u:p@a.blob.core.windows.net?sig=x",
    ],
)
def test_one_account_has_one_name(url: str) -> None:
    """Neither a signature nor a slash makes it another account, and no secret comes onto the share."""
    assert destination(url, "uploads", "") == HERE


def test_the_first_start_decides(root: Path) -> None:
    """An older version left no destination; from then on only this one is taken."""
    settle(str(root), HERE, 0)
    settle(str(root), HERE, 1)
    for other in (
        Destination("https://b.blob.core.windows.net", "uploads", ""),
        Destination(HERE.endpoint, "others", ""),
        Destination(HERE.endpoint, "uploads", "p/"),
    ):
        with pytest.raises(BadConfiguration) as refused:
            settle(str(root), other, 0)
        assert f"go to {HERE} " in str(refused.value)
        assert f"say {other}:" in str(refused.value)
    assert os.listdir(root / OWN) == ["destination.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"{}", b'{"endpoint":"x"}', b"\xff" * 9, b"[" * 70_000])
def test_a_damaged_one_ends_the_start(root: Path, content: bytes) -> None:
    """Where the files go must not be guessed."""
    (root / NAME).write_bytes(content)
    with pytest.raises(BadConfiguration, match="cannot be read"):
        settle(str(root), HERE, 0)
    assert (root / NAME).read_bytes() == content


@pytest.mark.parametrize("put", ODD)
def test_an_odd_one_ends_the_start(root: Path, put: Callable[[Path], None]) -> None:
    """A pipe must not hold the start, nor a link lead out of the share."""
    put(root / NAME)
    with pytest.raises(BadConfiguration, match="not a regular file"):
        settle(str(root), HERE, 0)


def attempt(root: str, container: str) -> bool:
    try:
        settle(root, Destination(HERE.endpoint, container, ""), 0)
    except BadConfiguration:
        return False
    return True


@pytest.mark.parametrize(("containers", "fine"), [(["one", "two"] * 4, 4), (["one"] * 8, 8)])
def test_of_processes_that_start_at_once_one_decides(root: Path, containers: list[str], fine: int) -> None:
    """Those that want the same go on, all others end."""
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        assert sum(pool.map(attempt, [str(root)] * 8, containers)) == fine
    assert os.listdir(root / OWN) == ["destination.json"]


def test_a_second_installation_ends_with_both_names(root: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    """Nothing of the share is touched; when a person has removed the file, the new destination is taken."""
    first = shard(tmp_path, root, endpoint.connection_string)
    first.up()
    first.kill()
    for container, prefix in (("others", ""), ("uploads", "p")):
        second = shard(tmp_path, root, endpoint.connection_string, container=container, blob_prefix=prefix)
        second.start()
        assert second.wait() == 1
        wait_for(lambda: "a share has one destination" in first.log(), "the reason")
    (root / NAME).unlink()
    moved = shard(tmp_path, root, endpoint.connection_string, container="others")
    try:
        moved.up()
    finally:
        moved.kill()
    assert b'"container":"others"' in (root / NAME).read_bytes()


def _status(server: Server) -> dict[str, Any]:
    (one,) = httpx.get(f"{server.url}/v1/watch/status?session=run", timeout=60).json()["sessions"]
    return dict(one)


def _call(server: Server, call: str) -> None:
    answer = httpx.post(f"{server.url}/v1/watch/{call}", json={"session": "run"}, timeout=60)
    assert answer.status_code in {201, 202}, answer.text


def _blobs(endpoint: Endpoint, container: str) -> list[str]:
    return [name for name in endpoint.store.blobs(container) if "/.receipts/" not in name]


@pytest.mark.parametrize("swept", [True, False], ids=["as documented", "without its first step"])
def test_a_share_is_moved_to_another_store_on_purpose(
    root: Path, tmp_path: Path, endpoint: Endpoint, swept: bool
) -> None:
    """docs/operations.md, Another destination. Where files of the old store still lie there they are kept, and shown."""
    with ExitStack() as stack:
        old = shard(tmp_path, root, endpoint.connection_string, retention=0.2 if swept else 3600)
        new = shard(tmp_path, root, endpoint.connection_string, container="others")
        stack.callback(old.kill)
        stack.callback(new.kill)
        old.up()
        _call(old, "start")
        (root / "run/x").write_bytes(b"x")
        wait_for(lambda: _blobs(endpoint, "uploads") == ["run/x"], "the file to be in the old store")
        if swept:
            _call(old, "stop")
            wait_for(lambda: _status(old)["state"] == "ended", "the session to end")
        else:
            wait_for((root / "run/x.completed").exists, "the file to be completed")
        old.kill()
        (root / NAME).unlink()
        new.up()
        if swept:
            _call(new, "start")
            (root / "run/y").write_bytes(b"y")
        else:
            wait_for(lambda: _status(new)["files"]["failed"] == 1, "the file to be shown")
            (shown,) = _status(new)["current"]
            assert shown["path"] == "x.completed"
            assert "there is no blob of this name" in shown["error"]
            (root / "run/x.completed").rename(root / "run/x")
        wait_for(lambda: _blobs(endpoint, "others") == ["run/y" if swept else "run/x"], "the file in the new store")
        _call(new, "stop")
        wait_for(lambda: _status(new)["state"] == "ended", "the session to end")
        assert os.listdir(root / "run") == []
        assert _blobs(endpoint, "uploads") == ["run/x"]

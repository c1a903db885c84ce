"""The benchmark's endpoint answers what its clients ask, so that the benchmark keeps working between its runs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.endpoint import Discard, discard, stats
from tests.bench.raw import small_rate
from tests.need import need
from tests.support.blobs import azure_blobs
from uploader.blob.azure import AzureBlobs
from uploader.blob.checksum import crc64
from uploader.blob.store import VERSION, Label
from uploader.errors import ExpiredBlocks, Overtaken
from uploader.upload.block import block_id


@pytest.fixture(params=["plain", "tls"])
def endpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Discard]:
    need("gcc")
    with discard(tmp_path, tls=request.param == "tls") as running:
        yield running


@pytest.fixture
def store(endpoint: Discard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureBlobs]:
    """The product's own store, which has found that it may read and write."""
    for name, value in endpoint.trust.items():
        monkeypatch.setenv(name, value)
    with azure_blobs(endpoint.connection_string, tmp_path) as blobs:
        yield blobs


def label(data: bytes) -> Label:
    return Label(len(data), crc64(data), bytes(16), 7, None, 0, "run", "text/plain")


def test_it_remembers_length_and_md5_and_forgets_the_rest(endpoint: Discard) -> None:
    """It costs no memory or disk, and clients that check their blobs find them."""
    body = os.urandom(300_000)
    with endpoint.client() as client:
        url = f"{endpoint.url}/uploads/a%20b"
        assert client.head(url).status_code == 404
        assert client.get(f"{url}?comp=blocklist").headers["x-ms-error-code"] == "BlobNotFound"
        assert client.put(url, content=body, headers={"Content-MD5": "abc"}).status_code == 201
        found = client.head(url)
        assert (found.headers["Content-Length"], found.headers["Content-MD5"]) == ("300000", "abc")
        for block in ("AA%3D%3D", "AQ=="):
            assert client.put(f"{url}?comp=block&blockid={block}", content=body).status_code == 201
        both = b"<BlockList><Latest>AA==</Latest><Uncommitted>AQ==</Uncommitted></BlockList>"
        assert client.put(f"{url}?comp=blocklist", content=both).status_code == 201
        assert client.head(url).headers["Content-Length"] == "600000"
        assert client.get(url).status_code == 501
        assert client.put(f"{endpoint.url}/uploads?restype=container").status_code == 201
        assert stats(client) == (10, 900_000 + len(both))


def test_a_blob_that_is_there_is_written_only_under_its_etag(store: AzureBlobs) -> None:
    """The conditions are the service's: 409 for one that must not exist, 412 for one that has changed."""
    first = store.put("run/a", b"one", label(b"one"), None)
    with pytest.raises(Overtaken, match="409 BlobAlreadyExists"):
        store.put("run/a", b"other", label(b"other"), None)
    second = store.put("run/a", b"other", label(b"other"), first)
    with pytest.raises(Overtaken, match="412 ConditionNotMet"):
        store.put("run/a", b"one", label(b"one"), first)
    found = store.head("run/a")
    assert found
    assert (found.etag, found.holds(label(b"other"))) == (second, True)


def test_metadata_and_snapshots_are_kept(store: AzureBlobs) -> None:
    """A conflict and an adopted blob are written by them."""
    first = store.put("run/a", b"one", label(b"one"), None)
    taken = store.snapshot("run/a", first)
    second = store.annotate("run/a", {VERSION: "x"}, first)
    with pytest.raises(Overtaken):
        store.relabel("run/a", label(b"one"), first)
    found, kept = store.head("run/a"), store.head("run/a", taken)
    assert found
    assert kept
    assert found.etag == second
    assert (found.version, found.crc64, kept.crc64) == ("x", None, crc64(b"one"))
    assert store.snapshots("run/a") == {}


def test_blocks_are_listed_until_they_are_committed(store: AzureBlobs) -> None:
    """A client that was killed sends only what is missing."""
    data = os.urandom(1000)
    ids = [block_id(index, crc64(data), 12) for index in range(2)]
    for each in ids:
        store.stage("run/big", each, memoryview(data), crc64(data))
    assert store.blocks("run/big").uncommitted == dict.fromkeys(ids, 1000)
    assert store.head("run/big") is None
    with pytest.raises(ExpiredBlocks):
        store.commit("run/big", [*ids, block_id(2, 0, 12)], label(data + data), None)
    etag = store.commit("run/big", ids, label(data + data), None)
    there = store.blocks("run/big")
    assert (there.uncommitted, there.committed, there.etag) == ({}, ids, etag)
    found = store.head("run/big")
    assert found
    assert found.size == 2000
    store.stage("run/big", block_id(9, 0, 12), memoryview(data), crc64(data))
    store.discard("run/big", store.blocks("run/big"))
    assert store.blocks("run/big").uncommitted == {}


def test_it_answers_many_small_requests(endpoint: Discard) -> None:
    """No rate is asserted here: the benchmark publishes it beside the other figures."""
    assert small_rate(endpoint, count=2000) > 0
    with endpoint.client() as client:
        assert stats(client)[0] >= 2000


def test_its_latency_is_that_of_each_request(tmp_path: Path) -> None:
    """Four clients with 50 ms a request make fewer than 80 requests a second."""
    need("gcc")
    with discard(tmp_path, tls=False, latency=0.05) as running:
        assert small_rate(running, count=40, threads=4) < 4 / 0.05


@pytest.mark.parametrize("tls", [False, True])
def test_a_slow_line_takes_no_more_than_it_can(tmp_path: Path, tls: bool) -> None:
    """All clients share the line, and what has arrived is counted before a request is whole."""
    need("gcc")
    with discard(tmp_path, tls=tls, line=1e6) as running, running.client() as client:
        began = time.monotonic()
        assert small_rate(running, size=100_000, count=8, threads=4) > 0
        took = time.monotonic() - began
        assert took > 0.7  # 0.8 MB at 1 MB/s, of which 20 ms may go ahead
        assert stats(client)[1] == 800_000

"""The benchmark's endpoint answers what its clients ask, so that the benchmark keeps working between its runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.endpoint import Discard, discard, stats
from tests.bench.raw import small_rate
from tests.need import need


@pytest.fixture(params=["plain", "tls"])
def endpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Discard]:
    need("gcc")
    with discard(tmp_path, tls=request.param == "tls") as running:
        yield running


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
        for block in ("AA==", "AQ=="):
            assert client.put(f"{url}?comp=block&blockid={block}", content=body).status_code == 201
        assert client.put(f"{url}?comp=blocklist", content=b"<BlockList/>").status_code == 201
        assert client.head(url).headers["Content-Length"] == "600000"
        assert client.put(f"{endpoint.url}/uploads?restype=container").status_code == 201
        assert stats(client) == (9, 900_012)


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

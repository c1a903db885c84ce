"""What our endpoint does beyond Azurite: limits, counted requests, and planned faults."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from awscrt.checksums import crc64nvme
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import BlobBlock, BlobClient, BlobServiceClient, LinearRetry

from tests.endpoint import store as store_module
from tests.endpoint.faults import Do, Fault, Hold, Refuse, Reset, StallReply, StallSend
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Store
from tests.support.programs import wait_for

BLOCK = f"{0:012}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(Store(uncommitted_limit=3)) as running:
        running.store.create("uploads")
        yield running


def client(endpoint: Endpoint, **options: Any) -> BlobClient:
    options = {"retry_total": 0, "max_single_put_size": 64 << 20} | options
    return BlobServiceClient.from_connection_string(endpoint.connection_string, **options).get_blob_client(
        "uploads", "a/b"
    )


@pytest.fixture
def blob(endpoint: Endpoint) -> Iterator[BlobClient]:
    with client(endpoint) as opened:
        yield opened


def refused(call: Callable[[], Any]) -> tuple[int | None, str]:
    with pytest.raises(HttpResponseError) as raised:
        call()
    response: Any = raised.value.response
    return raised.value.status_code, response.headers["x-ms-error-code"]


def test_the_crc64_is_the_one_of_the_service() -> None:
    """The check value of CRC-64/NVME: another polynomial would make every check pass here and fail in Azure."""
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888


def test_too_many_waiting_blocks_are_refused(blob: BlobClient) -> None:
    """The service's limit of 100,000 can be tested with three."""
    for index in range(3):
        blob.stage_block(f"{index:012}", b"x")
    blob.stage_block(f"{2:012}", b"again")
    assert refused(lambda: blob.stage_block(f"{3:012}", b"x")) == (409, "BlockCountExceedsLimit")


def test_a_put_blob_drops_the_blocks_that_wait(blob: BlobClient) -> None:
    """The service documents this; Azurite keeps them."""
    blob.stage_block(BLOCK, b"data")
    blob.upload_blob(b"whole", overwrite=True)
    assert not blob.get_block_list("uncommitted")[1]


def test_checksums_alone_can_be_kept() -> None:
    """Tests with gigabytes need no memory for the content."""
    with Endpoint(Store(keep_bytes=False)) as endpoint:
        endpoint.store.create("uploads")
        with client(endpoint) as blob:
            blob.stage_block(BLOCK, b"data")
            blob.commit_block_list([BlobBlock(BLOCK)])
            assert blob.get_blob_properties().size == 4
        (block,) = endpoint.store.blob("uploads", "a/b").committed or []
        assert (block.length, block.crc64, block.data) == (4, crc64nvme(b"data"), None)


def test_requests_and_their_bytes_are_counted(endpoint: Endpoint, blob: BlobClient) -> None:
    """Tests can tell what was sent, for which blob, and how often."""
    blob.stage_block(BLOCK, b"data")
    blob.stage_block(BLOCK, b"datum")
    blob.commit_block_list([BlobBlock(BLOCK)])
    assert [entry.received for entry in endpoint.log.of(Operation.PUT_BLOCK)] == [4, 5]
    assert endpoint.log.received(Operation.PUT_BLOCK, "a/b") == 9
    assert endpoint.log.received(Operation.PUT_BLOCK, "other") == 0
    (entry,) = endpoint.log.of(Operation.PUT_BLOCK_LIST)
    assert (entry.container, entry.blob, entry.status) == ("uploads", "a/b", 201)
    assert endpoint.log.of(Operation.PUT_BLOCK)[0].block == base64.b64encode(BLOCK.encode()).decode()


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "ServerBusy"), (429, "TooManyRequests")])
def test_a_refusal_hits_as_often_as_planned(endpoint: Endpoint, blob: BlobClient, status: int, code: str) -> None:
    """The first request passes, two are refused, and the next passes again."""
    planned = endpoint.faults.add(Refuse(status, code, retry_after=7), Operation.PUT_BLOCK, skip=1, times=2)
    blob.stage_block(BLOCK, b"1")
    for _ in range(2):
        with pytest.raises(HttpResponseError) as raised:
            blob.stage_block(BLOCK, b"2")
        response: Any = raised.value.response
        assert (raised.value.status_code, response.headers["Retry-After"]) == (status, "7")
    blob.stage_block(BLOCK, b"3")
    assert (planned.hits, len(endpoint.log.of(Operation.PUT_BLOCK))) == (2, 4)


def test_the_sdks_own_retry_gets_through_a_storm(endpoint: Endpoint) -> None:
    """The refusals look real enough for the SDK to retry them."""
    endpoint.faults.add(Refuse(503), times=2)
    policy = LinearRetry(backoff=0, retry_total=3, random_jitter_range=0)
    with client(endpoint, retry_policy=policy) as blob:
        blob.stage_block(BLOCK, b"data")
    assert [entry.status for entry in endpoint.log.of(Operation.PUT_BLOCK)] == [503, 503, 201]


def test_faults_choose_their_requests(endpoint: Endpoint, blob: BlobClient) -> None:
    """A fault hits only requests that its test means, and clear() ends all."""
    endpoint.faults.add(Refuse(403, "AuthenticationFailed"), when=lambda request: request.blob == "other", times=9)
    blob.stage_block(BLOCK, b"data")
    endpoint.faults.add(Refuse(401, "InvalidAuthenticationInfo"))
    assert refused(lambda: blob.stage_block(BLOCK, b"data"))[0] == 401
    endpoint.faults.add(Refuse(401), times=9)
    endpoint.faults.clear()
    blob.stage_block(BLOCK, b"data")


@pytest.mark.parametrize(("fault", "there"), [(Reset(), False), (Reset(after_effect=True), True)])
def test_a_reset_loses_the_effect_or_only_the_reply(
    endpoint: Endpoint, blob: BlobClient, fault: Fault, there: bool
) -> None:
    """The two cases that a client cannot tell apart."""
    blob.stage_block(BLOCK, b"data")
    endpoint.faults.add(fault, Operation.PUT_BLOCK_LIST)
    with pytest.raises(AzureError):
        blob.commit_block_list([BlobBlock(BLOCK)])
    assert bool(endpoint.store.blobs("uploads")) == there
    blob.commit_block_list([BlobBlock(BLOCK)])
    assert endpoint.store.blob("uploads", "a/b").content == b"data"


def test_a_stalled_send_meets_the_clients_timeout(endpoint: Endpoint) -> None:
    """The client gives up while the endpoint still stalls."""
    endpoint.faults.add(StallSend(3600, after_bytes=1 << 20), Operation.PUT_BLOCK)
    with (
        client(endpoint, connection_timeout=3, read_timeout=3) as blob,
        pytest.raises((ServiceRequestError, ServiceResponseError)),
    ):
        blob.stage_block(BLOCK, bytes(32 << 20))
    assert 0 < endpoint.log.received(Operation.PUT_BLOCK) < 4 << 20


def test_a_stalled_reply_comes_after_the_effect(endpoint: Endpoint) -> None:
    """The blob is stored although its client has given up."""
    endpoint.faults.add(StallReply(3600), Operation.PUT_BLOB)
    with client(endpoint, read_timeout=0.3) as blob, pytest.raises(ServiceResponseError):
        blob.upload_blob(b"data", overwrite=True)
    wait_for(lambda: endpoint.store.blobs("uploads"), "the effect")
    assert endpoint.store.blob("uploads", "a/b").content == b"data"


def test_what_is_held_waits_for_its_gate_and_then_has_its_effect(endpoint: Endpoint) -> None:
    """A test decides when a request goes on, while others pass."""
    gate = threading.Event()
    held = endpoint.faults.add(Hold(gate), Operation.PUT_BLOCK, skip=1)
    with client(endpoint) as blob, ThreadPoolExecutor(1) as pool:
        blob.stage_block(f"{1:012}", b"passes")
        staging = pool.submit(blob.stage_block, BLOCK, b"data")
        wait_for(lambda: held.hits == 1, "the request")
        assert len(blob.get_block_list("uncommitted")[1]) == 1
        gate.set()
        staging.result()
        assert len(blob.get_block_list("uncommitted")[1]) == 2


def test_blocks_can_expire_between_two_requests(endpoint: Endpoint, blob: BlobClient) -> None:
    """The service drops staged blocks after a week; here at once."""
    blob.stage_block(BLOCK, b"data")
    endpoint.faults.add(Do(Store.expire), Operation.PUT_BLOCK_LIST)
    assert refused(lambda: blob.commit_block_list([BlobBlock(BLOCK)])) == (400, "InvalidBlockList")


def test_a_container_can_vanish_and_stay_taken(
    endpoint: Endpoint, blob: BlobClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service refuses to make a container again while it deletes the old one."""
    endpoint.faults.add(Do(lambda store: store.drop("uploads", being_deleted=3600)))
    assert refused(lambda: blob.stage_block(BLOCK, b"data")) == (404, "ContainerNotFound")
    service = BlobServiceClient.from_connection_string(endpoint.connection_string, retry_total=0)
    assert refused(lambda: service.create_container("uploads")) == (409, "ContainerBeingDeleted")
    later = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 3600)
    monkeypatch.setattr(store_module, "time", later)
    service.create_container("uploads")


def test_a_clock_that_is_far_off_is_refused_and_shown(endpoint: Endpoint, blob: BlobClient) -> None:
    """Beyond 15 minutes the service refuses, and its Date shows by how much."""
    endpoint.faults.skew = 600
    blob.stage_block(BLOCK, b"data")
    endpoint.faults.skew = 1000
    assert refused(lambda: blob.stage_block(BLOCK, b"data")) == (403, "AuthenticationFailed")
    began = time.time()
    date = httpx.head(f"{endpoint.url}/uploads/a").headers["Date"]  # in whole seconds
    assert began - 1 <= parsedate_to_datetime(date).timestamp() - 1000 <= time.time()


def test_the_throttle_holds_over_all_connections(endpoint: Endpoint, blob: BlobClient) -> None:
    """A slow line is slow in sum, however many connections share it."""
    endpoint.faults.throttle.rate = 8e6
    started = time.monotonic()
    blob.upload_blob(bytes(4_000_000), overwrite=True)
    assert time.monotonic() - started > 0.4


def test_latency_is_added_to_each_request(endpoint: Endpoint, blob: BlobClient) -> None:
    endpoint.faults.latency = 0.2
    started = time.monotonic()
    blob.stage_block(BLOCK, b"data")
    blob.stage_block(BLOCK, b"data")
    assert time.monotonic() - started >= 0.4


def test_what_it_does_not_know_is_an_error(endpoint: Endpoint) -> None:
    """A request that the endpoint does not implement must not pass for a success."""
    assert httpx.put(f"{endpoint.url}/uploads/a?comp=page").status_code == 400
    with suppress(httpx.HTTPError):
        assert httpx.put(f"{endpoint.url}/uploads/a", content=b"x").status_code == 400

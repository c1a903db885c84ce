"""Replies that cannot be used become an error of the store with a text, never an exception that ends a thread."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from azure.core.pipeline import PipelineResponse

from tests.endpoint.faults import Alter, Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Store
from tests.support.blobs import ServiceStore, azure_blobs
from uploader.blob.azure import AzureBlobs, Retries
from uploader.blob.checksum import crc64
from uploader.blob.store import Blocks, Label
from uploader.errors import NameRefused, Overtaken, StoreAway, StoreRefused
from uploader.upload.block import block_id

HUGE = "9" * 5000
LIST = '<?xml version="1.0" encoding="utf-8"?><BlockList>{}</BlockList>'
COMMITTED = "<CommittedBlocks>{}</CommittedBlocks>"
WAITING = "<UncommittedBlocks>{}</UncommittedBlocks>"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(ServiceStore()) as running:
        yield running


@pytest.fixture
def store(endpoint: Endpoint, tmp_path: Path) -> Iterator[AzureBlobs]:
    with azure_blobs(endpoint.connection_string, tmp_path) as made:
        yield made


def commit(store: AzureBlobs) -> None:
    data = b"content"
    block = block_id(0, crc64(data))
    store.stage("run/x", block, memoryview(data), crc64(data))
    store.commit("run/x", [block], Label(7, crc64(data), None, 1, None, 0, "run", "x/y"), None)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("Content-Length", value) for value in (None, "", "seven", "-7", "7.0", "7, 7", "\u0667", HUGE)),
        *(("ETag", value) for value in (None, "")),
    ],
)
def test_a_description_without_length_or_version_is_refused(
    endpoint: Endpoint, store: AzureBlobs, header: str, value: str | None
) -> None:
    """Without both, no file may be taken for stored and no blob may be overwritten."""
    commit(store)
    if value:
        value = value.encode().decode("latin-1")
    endpoint.faults.add(Alter({header: value}), Operation.HEAD_BLOB)
    with pytest.raises(StoreRefused, match=f"cannot be used: the {header}"):
        store.head("run/x")
    assert store.head("run/x")


def test_metadata_that_anyone_wrote_is_no_reason_to_refuse(endpoint: Endpoint, store: AzureBlobs) -> None:
    """Other tools' blobs can be described; checksums that are nonsense count as absent."""
    commit(store)
    odd = {"x-ms-meta-crc64": "?", "Content-MD5": "=", "x-ms-meta-inode": "none"}
    endpoint.faults.add(Alter(odd), Operation.HEAD_BLOB)
    found = store.head("run/x")
    assert found
    assert (found.size, found.crc64, found.md5, found.inode) == (7, None, None, "none")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "not XML"),
        ("welcome", "not XML"),
        ("<BlockList>", "not XML"),
        ('<?xml version="1.0" encoding="nonsense"?><BlockList/>', "not XML"),
        ("<html><body/></html>", "html"),
        (LIST.format(COMMITTED.format("<Block><Name>YQ==</Name></Block><Block><Name></Name></Block>")), "id"),
        (LIST.format(COMMITTED.format("<Block><Name>a</Name></Block>")), "id"),
        (LIST.format(WAITING.format("<Block/>")), "id"),
        (LIST.format(WAITING.format("<Block><Name>?</Name><Size>7</Size></Block>")), "id"),
        (LIST.format(WAITING.format("<Block><Name>YQ==</Name></Block>")), "size"),
        (LIST.format(WAITING.format("<Block><Name>YQ==</Name><Size>many</Size></Block>")), "size"),
        (LIST.format(WAITING.format(f"<Block><Name>YQ==</Name><Size>{HUGE}</Size></Block>")), "size"),
    ],
)
def test_a_list_of_blocks_that_is_none_is_refused(endpoint: Endpoint, store: AzureBlobs, body: str, why: str) -> None:
    """A proxy's page or damaged XML must not be taken for "no blocks"."""
    commit(store)
    endpoint.faults.add(Alter(body=body.encode()), Operation.GET_BLOCK_LIST)
    with pytest.raises(StoreRefused, match=f"cannot be used: .*{why}"):
        store.blocks("run/x")
    assert store.blocks("run/x").committed


def test_content_that_is_listed_as_a_block_without_a_name_is_no_block(tmp_path: Path) -> None:
    """A commit replaces such content, and discard writes it again."""
    data = b"whole"
    with Endpoint(Store()) as endpoint, azure_blobs(endpoint.connection_string, tmp_path) as store:
        store.put("run/x", data, Label(5, crc64(data), None, 1, None, 0, "run", "x/y"), None)
        found = store.head("run/x")
        assert found
        assert store.blocks("run/x") == Blocks({}, [], found.etag)
        store.discard("run/x", store.blocks("run/x"))
        assert endpoint.store.blob("uploads", "run/x").content == data


@pytest.mark.parametrize("alter", [Alter(body=b"wrong"), Alter({"Content-MD5": None})], ids=["damaged", "no MD5"])
def test_content_that_nothing_proves_is_not_written_again(endpoint: Endpoint, store: AzureBlobs, alter: Alter) -> None:
    """What was damaged on the way back, or cannot be compared, must not replace what is stored."""
    store.put("run/x", b"whole", Label(5, crc64(b"whole"), None, 1, None, 0, "run", "x/y"), None)
    store.stage("run/x", block_id(0, crc64(b"a")), memoryview(b"a"), crc64(b"a"))
    before = store.head("run/x")
    endpoint.faults.add(alter, Operation.GET_BLOB)
    with pytest.raises(StoreRefused, match="delete the blob"):
        store.discard("run/x", store.blocks("run/x"))
    assert store.head("run/x") == before


def test_discard_of_a_blob_that_is_gone_is_overtaken(endpoint: Endpoint, store: AzureBlobs) -> None:
    store.put("run/x", b"whole", Label(5, crc64(b"whole"), None, 1, None, 0, "run", "x/y"), None)
    store.stage("run/x", block_id(0, crc64(b"a")), memoryview(b"a"), crc64(b"a"))
    seen = store.blocks("run/x")
    endpoint.store.delete("uploads", "run/x")
    with pytest.raises(Overtaken):
        store.discard("run/x", seen)


def test_a_list_of_committed_blocks_without_version_is_refused(endpoint: Endpoint, store: AzureBlobs) -> None:
    """Without an ETag the next write could not tell whether the blob has changed."""
    commit(store)
    endpoint.faults.add(Alter({"ETag": None}), Operation.GET_BLOCK_LIST)
    with pytest.raises(StoreRefused, match="the ETag is missing"):
        store.blocks("run/x")


@pytest.mark.parametrize(
    ("operation", "header"), [(Operation.PUT_BLOCK_LIST, "ETag"), (Operation.HEAD_BLOB, "Content-Length")]
)
def test_discard_needs_to_know_what_it_drops(
    endpoint: Endpoint, store: AzureBlobs, operation: Operation, header: str
) -> None:
    """Without the headers it can tell neither the empty blob it made nor the blob to commit again."""
    if operation is Operation.HEAD_BLOB:
        store.put("run/x", b"whole", Label(5, crc64(b"whole"), None, 1, None, 0, "run", "x/y"), None)
    store.stage("run/x", block_id(0, crc64(b"a")), memoryview(b"a"), crc64(b"a"))
    there = store.blocks("run/x")
    endpoint.faults.add(Alter({header: None}), operation)
    with pytest.raises(StoreRefused, match="cannot be used"):
        store.discard("run/x", there)


@pytest.mark.parametrize("after", ["soon", "Mon, 99 Foo"])
def test_a_request_for_patience_that_cannot_be_understood_is_a_store_that_is_away(
    endpoint: Endpoint, store: AzureBlobs, after: str
) -> None:
    """A 503 with a senseless Retry-After is still a 503."""
    endpoint.faults.add(Refuse(503, headers={"Retry-After": after}), Operation.HEAD_BLOB, times=4)
    with pytest.raises(StoreAway, match="503"):
        store.head("run/x")


@pytest.mark.parametrize(("after", "seconds"), [("7", 7), ("1e9", 60), ("inf", 60), ("nan", None), ("-1", None)])
def test_no_request_for_patience_stops_a_thread_for_long(after: str, seconds: float | None) -> None:
    """Retry-After is obeyed up to 60 s, and ignored where it is no length of time."""
    reply = SimpleNamespace(headers={"Retry-After": after})
    assert Retries().get_retry_after(PipelineResponse(None, reply, None)) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("date", ["yesterday", "Tue, 24 Nov 2026 19:00:00 -0000", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_refusal_with_a_date_that_is_none_is_a_refusal(endpoint: Endpoint, store: AzureBlobs, date: str) -> None:
    """The Date only serves to name a wrong clock; a bad one must not hide the refusal."""
    endpoint.faults.add(Refuse(403, "AuthenticationFailed", headers={"Date": date}), Operation.HEAD_BLOB)
    with pytest.raises(StoreRefused, match="403 AuthenticationFailed"):
        store.head("run/x")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidUri"),
        (400, "InvalidResourceName"),
        (400, "RequestUrlFailedToParse"),
        (414, "UriTooLong"),
        (414, ""),
    ],
)
def test_a_refusal_that_is_about_the_name_says_so(
    endpoint: Endpoint, store: AzureBlobs, status: int, code: str
) -> None:
    """It is final, which no other 400 is."""
    endpoint.faults.add(Refuse(status, code), Operation.PUT_BLOCK)
    endpoint.faults.add(Refuse(400, "InvalidHeaderValue"), Operation.PUT_BLOCK)
    with pytest.raises(NameRefused):
        commit(store)
    with pytest.raises(StoreRefused) as other:
        commit(store)
    assert type(other.value) is StoreRefused

"""One contract that our endpoint and real Azurite both keep, seen through the SDK."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, BlobServiceClient, ContainerClient, ContentSettings
from azure.storage.blob._generated.models import BlockLookupList

from tests.endpoint.server import Endpoint
from tests.need import need
from tests.support.programs import AZURITE, azurite


def ident(index: int, length: int = 12) -> str:
    """Make a block id; the SDK encodes it in base64 itself."""
    return f"{index:0{length}}"


def commit(blob: BlobClient, **lists: list[str]) -> None:
    """Commit ids as committed, uncommitted or latest. The SDK's public method takes a state but always sends Latest."""
    lookup = BlockLookupList(
        **{name: [base64.b64encode(each.encode()).decode() for each in ids] for name, ids in lists.items()}
    )
    blob._client.block_blob.commit_block_list(lookup)


def code(raised: pytest.ExceptionInfo[HttpResponseError]) -> str:
    response: Any = raised.value.response
    return str(response.headers["x-ms-error-code"])


@pytest.fixture(scope="module", params=["endpoint", "azurite"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "endpoint":
        with Endpoint() as endpoint:
            yield endpoint.connection_string
        return
    need(str(AZURITE))
    with azurite(tmp_path_factory.mktemp("azurite")) as connection_string:
        yield connection_string


@pytest.fixture(scope="module")
def container(connection: str) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(connection, retry_total=0) as service:
        yield service.create_container("uploads")


@pytest.fixture
def blob(container: ContainerClient, request: pytest.FixtureRequest) -> BlobClient:
    return container.get_blob_client(f"00/{request.node.name} ü.bin")


def test_a_container_exists_once(container: ContainerClient) -> None:
    """A second creation is refused with the code that our program reads as success."""
    container.get_container_properties()
    with pytest.raises(ResourceExistsError) as raised:
        container.create_container()
    assert code(raised) == "ContainerAlreadyExists"


def test_a_missing_container_is_named_as_such(connection: str) -> None:
    """The program can tell a missing container from a missing blob."""
    with BlobServiceClient.from_connection_string(connection, retry_total=0) as service:
        with pytest.raises(ResourceNotFoundError) as raised:
            service.get_container_client("nowhere").get_container_properties()
        assert code(raised) == "ContainerNotFound"
        with pytest.raises(ResourceNotFoundError) as raised:
            service.get_blob_client("nowhere", "x").stage_block(ident(0), b"x")
        assert code(raised) == "ContainerNotFound"


def test_one_put_blob_keeps_content_metadata_and_md5(blob: BlobClient) -> None:
    """The label that later proves a file is stored with its content."""
    md5 = hashlib.md5(b"content").digest()
    settings = ContentSettings(content_type="text/plain", content_md5=bytearray(md5))
    written = blob.upload_blob(b"content", metadata={"crc64": "abc"}, content_settings=settings, overwrite=True)
    found = blob.get_blob_properties()
    assert (found.size, found.etag, found.metadata) == (7, written["etag"], {"crc64": "abc"})
    assert found.content_settings.content_type == "text/plain"
    assert bytes(found.content_settings.content_md5 or b"") == md5
    assert blob.download_blob().readall() == b"content"
    assert blob.download_blob(offset=2, length=3).readall() == b"nte"


def test_a_put_blob_without_md5_gets_one_from_the_service(blob: BlobClient) -> None:
    """Small blobs of other tools can be proven by this MD5."""
    blob.upload_blob(b"content", overwrite=True)
    assert bytes(blob.get_blob_properties().content_settings.content_md5 or b"") == hashlib.md5(b"content").digest()


def test_an_empty_blob_is_a_blob(blob: BlobClient) -> None:
    blob.upload_blob(b"", overwrite=True)
    assert blob.get_blob_properties().size == 0
    assert blob.download_blob().readall() == b""


def test_unknown_blobs_are_404_to_every_question(blob: BlobClient) -> None:
    with pytest.raises(ResourceNotFoundError) as raised:
        blob.get_blob_properties()
    assert code(raised) == "BlobNotFound"
    with pytest.raises(ResourceNotFoundError) as raised:
        blob.get_block_list("all")
    assert code(raised) == "BlobNotFound"
    with pytest.raises(ResourceNotFoundError):
        blob.download_blob()
    with pytest.raises(ResourceNotFoundError):
        blob.delete_blob()


def test_blocks_wait_uncommitted_then_are_committed_in_the_order_of_the_list(blob: BlobClient) -> None:
    """A blob is not visible before its commit, and a block left out is dropped."""
    for index, data in enumerate([b"one", b"two", b"three"]):
        blob.stage_block(ident(index), data)
    with pytest.raises(ResourceNotFoundError):
        blob.get_blob_properties()
    committed, uncommitted = blob.get_block_list("all")
    assert not committed
    assert sorted((block.id, block.size) for block in uncommitted) == [
        (ident(0), 3),
        (ident(1), 3),
        (ident(2), 5),
    ]
    settings = ContentSettings(content_md5=bytearray(b"0123456789abcdef"))
    blob.commit_block_list([BlobBlock(ident(2)), BlobBlock(ident(0))], metadata={"a": "b"}, content_settings=settings)
    assert blob.download_blob().readall() == b"threeone"
    found = blob.get_blob_properties()
    assert (found.metadata, bytes(found.content_settings.content_md5 or b"")) == (
        {"a": "b"},
        b"0123456789abcdef",
    )
    committed, uncommitted = blob.get_block_list("all")
    assert [block.id for block in committed] == [ident(2), ident(0)]
    assert not uncommitted  # the one left out is gone


def test_a_block_sent_twice_counts_once_and_the_last_content_holds(blob: BlobClient) -> None:
    """A block whose reply was lost may be sent again."""
    blob.stage_block(ident(0), b"old")
    blob.stage_block(ident(0), b"newer")
    _, uncommitted = blob.get_block_list("uncommitted")
    assert [(block.id, block.size) for block in uncommitted] == [(ident(0), 5)]


def test_a_commit_repeated_finds_the_committed_blocks(blob: BlobClient) -> None:
    """A commit whose reply was lost may be sent again."""
    blob.stage_block(ident(0), b"data")
    blob.commit_block_list([BlobBlock(ident(0))])
    blob.commit_block_list([BlobBlock(ident(0))])
    assert blob.download_blob().readall() == b"data"


def test_latest_prefers_the_uncommitted_block_and_committed_does_not(blob: BlobClient) -> None:
    """Staged blocks do not change the committed blob until a commit names them."""
    blob.stage_block(ident(0), b"old")
    blob.commit_block_list([BlobBlock(ident(0))])
    blob.stage_block(ident(0), b"new")
    assert blob.download_blob().readall() == b"old"  # a blob under way does not touch the committed one
    commit(blob, committed=[ident(0)])
    assert blob.download_blob().readall() == b"old"
    blob.stage_block(ident(0), b"new")
    commit(blob, latest=[ident(0)])
    assert blob.download_blob().readall() == b"new"


@pytest.mark.parametrize("state", ["latest", "committed", "uncommitted"])
def test_unknown_blocks_in_a_list_are_refused_and_harm_nothing(blob: BlobClient, state: str) -> None:
    """After such a refusal the blob and the staged blocks are as before."""
    blob.upload_blob(b"good", overwrite=True)
    blob.stage_block(ident(0), b"data")
    with pytest.raises(HttpResponseError) as raised:
        commit(blob, **{state: [ident(7)]})
    assert (raised.value.status_code, code(raised)) == (400, "InvalidBlockList")
    assert blob.download_blob().readall() == b"good"
    assert len(blob.get_block_list("uncommitted")[1]) == 1


def test_ids_of_another_length_are_refused_while_blocks_wait(blob: BlobClient) -> None:
    """Only uncommitted blocks fix the length of ids."""
    blob.stage_block(ident(0, 12), b"data")
    with pytest.raises(HttpResponseError) as raised:
        blob.stage_block(ident(0, 24), b"data")
    assert (raised.value.status_code, code(raised)) == (400, "InvalidBlobOrBlock")
    blob.commit_block_list([BlobBlock(ident(0, 12))])
    blob.stage_block(ident(0, 24), b"data")  # committed ones do not matter


def test_content_md5_is_verified_for_each_body(blob: BlobClient) -> None:
    """A damaged block is refused and not staged."""
    right = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    blob.stage_block(ident(0), b"data", headers={"Content-MD5": right})
    with pytest.raises(HttpResponseError) as raised:
        blob.stage_block(ident(1), b"date", headers={"Content-MD5": right})
    assert (raised.value.status_code, code(raised)) == (400, "Md5Mismatch")
    assert [block.id for block in blob.get_block_list("uncommitted")[1]] == [ident(0)]


def test_content_crc64_is_verified_for_each_body(blob: BlobClient) -> None:
    """A damaged block or blob is refused and not stored."""
    right = {"x-ms-content-crc64": base64.b64encode(crc64nvme(b"data").to_bytes(8, "little")).decode()}
    blob.stage_block(ident(0), b"data", headers=right)
    with pytest.raises(HttpResponseError) as raised:
        blob.stage_block(ident(1), b"date", headers=right)
    assert (raised.value.status_code, code(raised)) == (400, "Crc64Mismatch")
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(b"date", headers=right)
    assert (raised.value.status_code, code(raised)) == (400, "Crc64Mismatch")
    assert [block.id for block in blob.get_block_list("uncommitted")[1]] == [ident(0)]
    blob.upload_blob(b"data", headers=right, overwrite=True)
    assert bytes(blob.get_blob_properties().content_settings.content_md5 or b"") == hashlib.md5(b"data").digest()


def test_a_put_blob_takes_one_checksum_and_the_blobs_md5_is_one(blob: BlobClient) -> None:
    """Two checksums on one body are refused, so the program must choose."""
    md5 = bytearray(hashlib.md5(b"data").digest())
    crc64 = {"x-ms-content-crc64": base64.b64encode(crc64nvme(b"data").to_bytes(8, "little")).decode()}
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(b"data", headers=crc64, content_settings=ContentSettings(content_md5=md5))
    assert (raised.value.status_code, code(raised)) == (400, "BothCrc64AndMd5HeaderPresent")
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(b"date", content_settings=ContentSettings(content_md5=md5))
    assert (raised.value.status_code, code(raised)) == (400, "Md5Mismatch")
    with pytest.raises(HttpResponseError) as raised:
        blob.stage_block(ident(0), b"data", headers=crc64 | {"Content-MD5": base64.b64encode(md5).decode()})
    assert (raised.value.status_code, code(raised)) == (400, "BothCrc64AndMd5HeaderPresent")
    blob.stage_block(ident(0), b"data", headers=crc64)
    blob.commit_block_list([BlobBlock(ident(0))], content_settings=ContentSettings(content_md5=md5))


def test_the_blobs_md5_is_verified_on_put_blob_and_only_kept_on_a_commit(blob: BlobClient) -> None:
    """The service documents that Put Blob ignores Content-MD5 beside it, so the program never sends two."""
    right, wrong = (hashlib.md5(data).digest() for data in (b"data", b"date"))
    headers = {"Content-MD5": base64.b64encode(wrong).decode()}
    blob.upload_blob(b"data", headers=headers, content_settings=ContentSettings(content_md5=bytearray(right)))
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(
            b"date", headers=headers, overwrite=True, content_settings=ContentSettings(content_md5=bytearray(right))
        )
    assert (raised.value.status_code, code(raised)) == (400, "Md5Mismatch")
    with pytest.raises(HttpResponseError) as raised:
        blob.upload_blob(b"data", headers=headers, overwrite=True)
    assert (raised.value.status_code, code(raised)) == (400, "Md5Mismatch")
    blob.stage_block(ident(0), b"data", headers={"x-ms-blob-content-md5": base64.b64encode(wrong).decode()})
    blob.commit_block_list([BlobBlock(ident(0))], content_settings=ContentSettings(content_md5=bytearray(wrong)))
    assert bytes(blob.get_blob_properties().content_settings.content_md5 or b"") == wrong


def test_conditions_are_kept(blob: BlobClient) -> None:
    """A write that must not overwrite is refused, and the first content stays."""
    blob.upload_blob(b"first", overwrite=True)
    with pytest.raises(ResourceExistsError) as raised:
        blob.upload_blob(b"second", overwrite=False)
    assert code(raised) == "BlobAlreadyExists"
    blob.stage_block(ident(0), b"data")
    with pytest.raises(HttpResponseError) as refused:
        blob.commit_block_list([BlobBlock(ident(0))], if_none_match="*")
    assert refused.value.status_code in {409, 412}
    assert blob.download_blob().readall() == b"first"


def test_a_deleted_blob_is_gone(blob: BlobClient) -> None:
    blob.upload_blob(b"data", overwrite=True)
    blob.delete_blob()
    assert not blob.exists()

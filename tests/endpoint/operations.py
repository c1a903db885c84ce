"""The effect of each call on the store, and its answer."""

import base64
import binascii
import hashlib
from collections.abc import Callable

from awscrt.checksums import crc64nvme

from tests.endpoint.reply import Reply, block_list, crc64_text, listing, properties, version, wanted
from tests.endpoint.request import Operation, Request
from tests.endpoint.store import Blob, Block, Refused, Store

# Headers of a Put Blob or Put Block List that become headers of the blob.
STORED = {
    "x-ms-blob-content-type": "Content-Type",
    "x-ms-blob-content-md5": "Content-MD5",
    "x-ms-blob-content-encoding": "Content-Encoding",
    "x-ms-blob-content-language": "Content-Language",
    "x-ms-blob-content-disposition": "Content-Disposition",
    "x-ms-blob-cache-control": "Cache-Control",
}


def perform(store: Store, request: Request) -> Reply:
    """Carry out one request whose body has arrived.

    Raises:
        Refused: the service's answer is an error.
    """
    return CALLS[request.operation](store, request)


def checksum(data: bytes | bytearray) -> int:
    """Return Azure's CRC64, which is CRC-64/NVME."""
    return crc64nvme(data)  # type: ignore[arg-type]  # any buffer will do


def _verified(request: Request) -> dict[str, str]:
    """Compare the body with the checksum it came with; the reply repeats an MD5, else names the CRC64.

    On Put Blob, x-ms-blob-content-md5 is the body's MD5 and Content-MD5 beside it is ignored:
    learn.microsoft.com/archive/blogs/windowsazurestorage/windows-azure-blob-md5-overview. On Put Block List it is only
    kept, and on Put Block it means nothing. The codes, and that a CRC64 beside either is refused, are as Azurite's authors found
    them at the real service.
    """
    md5, crc64 = request.headers.get("Content-MD5"), request.headers.get("x-ms-content-crc64")
    if request.operation == Operation.PUT_BLOB:
        md5 = request.headers.get("x-ms-blob-content-md5", md5)
    if md5 and crc64:
        raise Refused(
            400, "BothCrc64AndMd5HeaderPresent", "Both x-ms-content-crc64 header and Content-MD5 header are present."
        )
    if md5:
        if _bytes(md5, 16, "InvalidMd5") != hashlib.md5(request.body).digest():
            raise Refused(400, "Md5Mismatch", "The MD5 value specified in the request did not match the body.")
        return {"Content-MD5": md5}
    actual = crc64_text(checksum(request.body))
    if crc64 and crc64 != actual:
        _bytes(crc64, 8, "InvalidHeaderValue")
        raise Refused(400, "Crc64Mismatch", "The CRC64 value specified in the request did not match the body.")
    return {"x-ms-content-crc64": actual}


def _bytes(text: str, length: int, code: str) -> bytes:
    """Read a checksum's base64."""
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused(400, code) from error
    if len(value) != length:
        raise Refused(400, code)
    return value


def _block(store: Store, request: Request) -> Block:
    data = request.body if store.keep_bytes else None
    return Block(request.block, len(request.body), checksum(request.body), data)


def _stored(request: Request) -> dict[str, str]:
    return {kept: request.headers[sent] for sent, kept in STORED.items() if sent in request.headers}


def _metadata(request: Request) -> dict[str, str]:
    start = "x-ms-meta-"
    return {name[len(start) :]: value for name, value in request.headers.items() if name.lower().startswith(start)}


def _may_write(store: Store, request: Request) -> None:
    """Check If-Match and If-None-Match against what is committed."""
    found: Blob | None = store.container(request.container).get(request.blob)
    if found and found.committed is None:
        found = None
    none_match, match = request.headers.get("If-None-Match"), request.headers.get("If-Match")
    if none_match == "*" and found:
        raise Refused(409, "BlobAlreadyExists")
    if (none_match and found and none_match == found.etag) or (match and (not found or match not in {"*", found.etag})):
        raise Refused(412, "ConditionNotMet")


def _create_container(store: Store, request: Request) -> Reply:
    store.create(request.container)
    return Reply(201, {"ETag": '"0x1"'})


def _get_container(store: Store, request: Request) -> Reply:
    store.container(request.container)
    return Reply(200, {"ETag": '"0x1"', "x-ms-lease-state": "available", "x-ms-lease-status": "unlocked"})


def _delete_container(store: Store, request: Request) -> Reply:
    store.drop(request.container, being_deleted=30)
    return Reply(202)


def _put_blob(store: Store, request: Request) -> Reply:
    if request.headers.get("x-ms-blob-type") != "BlockBlob":
        raise Refused(400, "MissingRequiredHeader", "x-ms-blob-type: BlockBlob is what this endpoint knows")
    checked = _verified(request)
    _may_write(store, request)
    # The service computes and keeps the MD5 of a Put Blob itself.
    headers = _stored(request) | {"Content-MD5": base64.b64encode(hashlib.md5(request.body).digest()).decode()}
    blob = store.put_blob(request.container, request.blob, _block(store, request), headers, _metadata(request))
    return Reply(201, version(blob) | checked)


def _put_block(store: Store, request: Request) -> Reply:
    checked = _verified(request)
    store.put_block(request.container, request.blob, _block(store, request))
    return Reply(201, checked)


def _put_block_list(store: Store, request: Request) -> Reply:
    checked = _verified(request)
    _may_write(store, request)
    names = list(wanted(request.body))
    blob = store.put_block_list(request.container, request.blob, names, _stored(request), _metadata(request))
    return Reply(201, version(blob) | checked)


def _get_block_list(store: Store, request: Request) -> Reply:
    kind = request.query.get("blocklisttype", "committed").lower()
    return block_list(store.block_list(request.container, request.blob), kind)


def _get_blob(store: Store, request: Request) -> Reply:
    blob = store.blob(request.container, request.blob)
    described = properties(blob)
    if request.headers.get("If-None-Match") == blob.etag:
        raise Refused(304, "ConditionNotMet")
    if request.operation == Operation.HEAD_BLOB:
        return Reply(200, described | {"Content-Length": str(blob.length)})
    asked = request.headers.get("x-ms-range") or request.headers.get("Range")
    if not asked:
        return Reply(200, described, blob.content)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if int(first) >= blob.length:
        raise Refused(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    end = min(int(last or blob.length), blob.length - 1)
    if md5 := described.pop("Content-MD5", None):
        described["x-ms-blob-content-md5"] = md5
    described["Content-Range"] = f"bytes {first}-{end}/{blob.length}"
    return Reply(206, described, blob.content[int(first) : end + 1])


def _set_metadata(store: Store, request: Request) -> Reply:
    store.blob(request.container, request.blob)
    _may_write(store, request)
    return Reply(200, version(store.set_metadata(request.container, request.blob, _metadata(request))))


def _snapshot(store: Store, request: Request) -> Reply:
    store.blob(request.container, request.blob)
    _may_write(store, request)
    made, kept = store.snapshot(request.container, request.blob, _metadata(request))
    return Reply(201, version(kept) | {"x-ms-snapshot": made})


def _list_blobs(store: Store, request: Request) -> Reply:
    prefix = request.query.get("prefix", "")
    found = {name: blob for name, blob in store.blobs(request.container).items() if name.startswith(prefix)}
    return listing(found, int(request.query.get("maxresults", store.page)), request.query.get("marker", ""))


def _delete_blob(store: Store, request: Request) -> Reply:
    store.delete(request.container, request.blob)
    return Reply(202, {"x-ms-delete-type-permanent": "true"})


CALLS: dict[Operation, Callable[[Store, Request], Reply]] = {
    Operation.CREATE_CONTAINER: _create_container,
    Operation.GET_CONTAINER: _get_container,
    Operation.DELETE_CONTAINER: _delete_container,
    Operation.PUT_BLOB: _put_blob,
    Operation.PUT_BLOCK: _put_block,
    Operation.PUT_BLOCK_LIST: _put_block_list,
    Operation.GET_BLOCK_LIST: _get_block_list,
    Operation.GET_BLOB: _get_blob,
    Operation.HEAD_BLOB: _get_blob,
    Operation.DELETE_BLOB: _delete_blob,
    Operation.SET_METADATA: _set_metadata,
    Operation.SNAPSHOT_BLOB: _snapshot,
    Operation.LIST_BLOBS: _list_blobs,
}

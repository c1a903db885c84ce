"""Faults that an upload survives, none of which harms a committed blob."""

import os
from base64 import b64encode
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from tests.endpoint.faults import Do, Fault, Refuse, Reset, StallReply, StallSend
from tests.endpoint.request import Operation, Request
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Block, Store
from tests.need import need
from tests.support.blobs import CONTAINER, ServiceStore, azure_blobs
from tests.support.programs import AZURITE, azurite, connection_string
from tests.upload.sending import BLOCK, NAME, Sending, in_thread, sending, upload
from uploader.blob.azure import AzureBlobs
from uploader.blob.checksum import crc64
from uploader.blob.store import Label
from uploader.errors import BadConfiguration, StoreAway, StoreError, StoreRefused
from uploader.upload.block import block_id
from uploader.upload.memory import Memory
from uploader.upload.transfer import Transfer

PUTS = (Operation.PUT_BLOB, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST)
LARGE, SMALL = 5 * BLOCK + 17, 1000


def leave(engine: Sending, *ids: bytes, data: bytes = b"left over") -> None:
    """Leave uncommitted blocks under the name, as another tool or version would."""
    for each in ids:
        engine.store.stage(NAME, b64encode(each).decode(), memoryview(data), crc64(data))


@pytest.mark.parametrize("length", [1, 4, 8, 12, 36, 64])
@pytest.mark.parametrize("before", [None, "blocks", "put"])
def test_leftover_ids_of_another_length(engine: Sending, length: int, before: str | None) -> None:
    """The service wants ids of one length, so ours take that of the leftovers; very short ones are dropped."""
    if before:
        engine.upload(engine.file(LARGE if before == "blocks" else SMALL))
    leave(engine, b"x" * length, b"y" * length)
    content = engine.blob().content if before else None
    seen: list[bytes | None] = []

    def look(store: Store) -> None:
        blob = store.blobs(CONTAINER).get(NAME)
        seen.append(blob.content if blob else None)

    engine.endpoint.faults.add(Do(look), Operation.PUT_BLOCK, times=1000)
    engine.endpoint.log.clear()
    path = engine.file(LARGE)
    engine.upload(path)
    assert engine.holds(path)
    assert {request.status for request in engine.endpoint.log.of(Operation.PUT_BLOCK)} == {201}
    assert set(seen) == {content}, "the blob of before could not be read all the time"


@pytest.mark.parametrize("length", [4, 12])
def test_what_is_there_already_needs_no_room(engine: Sending, length: int) -> None:
    """Leftovers beside this very content are nobody's matter: nothing is written."""
    path = engine.file(LARGE)
    data = path.read_bytes()
    whole = Label(len(data), crc64(data), None, 1, None, 0, "run", "application/octet-stream")
    engine.store.put(NAME, data, whole, None)
    leave(engine, b"x" * length)
    engine.endpoint.log.clear()
    engine.upload(path)
    assert engine.count(*PUTS) == 0
    assert engine.holds(path)


def test_leftovers_that_appear_on_the_way(engine: Sending) -> None:
    """InvalidBlobOrBlock midway: the block list is read again and the blocks are sent with ids of the new length."""

    def another_tool(store: Store) -> None:
        store.expire()
        name = b64encode(b"another tool's id").decode()
        store.put_block(CONTAINER, NAME, Block(name, 3, crc64(b"old"), b"old"))

    engine.endpoint.faults.add(Do(another_tool), Operation.PUT_BLOCK, skip=3)
    path = engine.file(LARGE)
    engine.upload(path)
    assert engine.holds(path)
    assert sum(engine.sent) == LARGE  # what was counted twice was taken back


def test_committed_ids_of_another_length_that_the_service_insists_on(engine: Sending) -> None:
    """Refused without any leftover block: the committed blob's own ids tell the length."""
    data = b"another tool's content"
    theirs = b64encode(b"i" * 40).decode()
    engine.store.stage(NAME, theirs, memoryview(data), crc64(data))
    label = Label(len(data), crc64(data), None, 0, None, 0, "run", "application/octet-stream")
    engine.store.commit(NAME, [theirs], label, None)
    refused = engine.endpoint.faults.add(
        Refuse(400, "InvalidBlobOrBlock"),
        Operation.PUT_BLOCK,
        times=1000,
        when=lambda request: len(request.block) != len(theirs),
    )
    path = engine.file(LARGE)
    engine.upload(path)
    assert refused.hits
    assert engine.holds(path)


def test_blocks_that_expired_are_sent_again(engine: Sending) -> None:
    """The service drops uncommitted blocks after a week: the commit fails once and the file is sent whole."""
    engine.endpoint.faults.add(Do(Store.expire), Operation.PUT_BLOCK_LIST)
    path = engine.file(LARGE)
    engine.upload(path)
    assert engine.holds(path)
    assert sum(engine.sent) == LARGE


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Sending]:
    """An engine whose endpoint takes 8 uncommitted blocks of a blob, in place of 100,000."""
    store = ServiceStore(uncommitted_limit=8)
    with Endpoint(store) as endpoint, sending(tmp_path, endpoint) as made:
        yield made


@pytest.mark.parametrize("committed", [False, True])
def test_too_many_uncommitted_blocks(crowded: Sending, committed: bool) -> None:
    """BlockCountExceedsLimit: the leftovers are dropped, and a committed blob can be read all the time."""
    if committed:
        crowded.upload(crowded.file(LARGE))
    before = crowded.blob().content if committed else None
    leave(crowded, *(block_id_of_another_content(index) for index in range(8)))
    seen: list[bytes | None] = []

    def look(store: Store) -> None:
        blob = store.blobs(CONTAINER).get(NAME)
        seen.append(blob.content if blob else None)

    crowded.endpoint.faults.add(Do(look), Operation.PUT_BLOCK, skip=3, times=1000)
    path = crowded.file(LARGE)
    crowded.upload(path)
    assert crowded.holds(path)
    assert set(seen) == {before}


def block_id_of_another_content(index: int) -> bytes:
    return index.to_bytes(4, "big") + os.urandom(8)


def test_too_many_blocks_beside_a_blob_without_blocks(crowded: Sending) -> None:
    """The blob is written again as it is, which drops them."""
    crowded.upload(crowded.file(SMALL))
    leave(crowded, *(block_id_of_another_content(index) for index in range(8)))
    path = crowded.file(LARGE, "b.bin")
    crowded.upload(path)
    assert crowded.holds(path)


def test_a_blob_without_blocks_that_the_memory_cannot_hold_is_for_a_person(crowded: Sending) -> None:
    """It is left alone, and the error says what to do."""
    data = os.urandom(16 * BLOCK + 1)
    whole = Label(len(data), crc64(data), None, 1, None, 0, "run", "application/octet-stream")
    crowded.store.put(NAME, data, whole, None)
    leave(crowded, *(block_id_of_another_content(index) for index in range(8)))
    with pytest.raises(StoreRefused, match="delete the blob"):
        crowded.upload(crowded.file(LARGE))
    assert crowded.blob().content == data


@pytest.mark.parametrize("size", [SMALL, LARGE, 0])
def test_a_lost_reply_to_the_last_write(engine: Sending, size: int) -> None:
    """The repeated write fails its own condition; the blob's content shows that the file is done."""
    engine.endpoint.faults.add(Reset(after_effect=True), Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST)
    path = engine.file(size)
    engine.upload(path)
    assert engine.holds(path)
    assert engine.blob().etag == '"0x000000000000001"', "it was written twice"


def test_a_lost_reply_and_then_none_at_all(engine: Sending) -> None:
    """The file's next try finds the blob complete and sends nothing."""
    last = (Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST)
    engine.endpoint.faults.add(Reset(after_effect=True), Operation.PUT_BLOB)
    engine.endpoint.faults.add(Reset(after_effect=True), Operation.PUT_BLOCK_LIST)
    engine.endpoint.faults.add(Reset(), Operation.HEAD_BLOB, *last, times=100)
    paths = [engine.file(size, f"{size}.bin") for size in (SMALL, LARGE)]
    ended = [in_thread(lambda path=path: engine.upload(path, path.name)) for path in paths]  # type: ignore[misc]
    assert [type(end()) for end in ended] == [StoreAway, StoreAway]
    engine.endpoint.faults.clear()
    engine.endpoint.log.clear()
    for path in paths:
        engine.upload(path, path.name, retried=True)
        assert engine.holds(path, path.name)
    assert engine.count(*PUTS) == 0


@pytest.mark.parametrize(("size", "code"), [(SMALL, 500), (SMALL, 429), (SMALL, 408), (LARGE, 503), (LARGE, 429)])
def test_a_storm(engine: Sending, size: int, code: int) -> None:
    """Each write is refused twice and taken the third time, and no sooner than Retry-After asks."""
    hits: dict[tuple[str, str], int] = {}

    def twice(request: Request) -> bool:
        key = (request.operation, request.block)
        hits[key] = hits.get(key, 0) + 1
        return hits[key] <= 2

    pause = 0.3
    engine.endpoint.faults.add(Refuse(code, retry_after=pause), *PUTS, times=1000, when=twice)
    path = engine.file(size)
    engine.upload(path)
    assert engine.holds(path)
    for first, second in pairs(engine):
        assert second.started - first.started >= pause


def pairs(engine: Sending) -> list[tuple[Request, Request]]:
    """Return each write with its next try, in pairs."""
    tries: dict[tuple[str, str], list[Request]] = {}
    for operation in PUTS:
        for request in engine.endpoint.log.of(operation):
            tries.setdefault((operation, request.block), []).append(request)
    return [pair for each in tries.values() for pair in pairwise(each)]


def test_a_storm_that_outlasts_one_try_of_the_file(engine: Sending) -> None:
    """The file fails, and its next try sends only the blocks that are missing."""
    engine.endpoint.faults.add(Refuse(503, retry_after=0.01), Operation.PUT_BLOCK, skip=3, times=100)
    path = engine.file(LARGE)
    with pytest.raises(StoreAway, match="503 ServerBusy"):
        engine.upload(path)
    engine.endpoint.faults.clear()
    engine.endpoint.log.clear()
    engine.upload(path, retried=True)
    assert engine.count(Operation.PUT_BLOCK) == 3
    assert engine.holds(path)


@pytest.mark.parametrize("operation", PUTS)
def test_a_reset_connection(engine: Sending, operation: Operation) -> None:
    """A connection that breaks during any kind of write costs one more try, and no file."""
    engine.endpoint.faults.add(Reset(), operation)
    path = engine.file(SMALL if operation is Operation.PUT_BLOB else LARGE)
    engine.upload(path)
    assert engine.holds(path)


@pytest.mark.parametrize("fault", [StallSend(600, after_bytes=0), StallSend(600, after_bytes=1 << 17), StallReply(600)])
@pytest.mark.parametrize("size", [6 << 20, 18 << 20])
def test_a_send_or_a_reply_that_stalls(tmp_path: Path, fault: Fault, size: int) -> None:
    """The time-out counts for each piece: other blocks go on, and the stalled one is sent on a new connection."""
    block = 8 << 20
    with sending(tmp_path, timeout=2, block_size=block, memory=4 * block) as engine:
        stalled = engine.endpoint.faults.add(fault, Operation.PUT_BLOB, Operation.PUT_BLOCK)
        path = engine.file(size)
        engine.upload(path)
        assert stalled.hits == 1
        assert 0 in {
            request.status
            for request in engine.endpoint.log.of(Operation.PUT_BLOCK if size > block else Operation.PUT_BLOB)
        }
        assert engine.holds(path)


def test_a_request_that_is_refused_once(engine: Sending) -> None:
    """A token or signature that is refused once: the file's next try goes through."""
    engine.endpoint.faults.add(Refuse(403, "AuthenticationFailed"), Operation.PUT_BLOCK, skip=2)
    path = engine.file(LARGE)
    with pytest.raises(StoreRefused, match="403 AuthenticationFailed"):
        engine.upload(path)
    engine.upload(path, retried=True)
    assert engine.holds(path)


@pytest.mark.parametrize("operation", PUTS)
@pytest.mark.parametrize(("status", "code"), [(200, ""), (302, ""), (204, ""), (404, "BlobNotFound"), (404, "")])
def test_only_the_services_own_confirmation_counts(
    engine: Sending, operation: Operation, status: int, code: str
) -> None:
    """After a proxy's page, a redirect or a 404 nothing was stored, so the file is not complete (I1)."""
    engine.endpoint.faults.add(Refuse(status, code), operation, times=100)
    with pytest.raises(StoreRefused):
        engine.upload(engine.file(SMALL if operation is Operation.PUT_BLOB else LARGE))
    assert not engine.blobs()


def test_a_container_that_is_deleted_under_way_is_made_again(engine: Sending) -> None:
    """Uploads recover by themselves from a container that someone deletes and the account may create."""
    engine.endpoint.faults.add(Do(lambda store: store.drop(CONTAINER)), Operation.PUT_BLOCK, skip=2)
    path = engine.file(LARGE)
    with pytest.raises(StoreAway, match="ContainerNotFound"):
        engine.upload(path)
    engine.upload(path, retried=True)
    assert engine.holds(path)


def test_a_container_that_cannot_be_made_again_is_for_a_person(engine: Sending) -> None:
    """The error tells the operator that the account may not create containers."""
    engine.endpoint.faults.add(Do(lambda store: store.drop(CONTAINER)), Operation.PUT_BLOCK, skip=2)
    engine.endpoint.faults.add(Refuse(403, "AuthorizationFailure"), Operation.CREATE_CONTAINER, times=100)
    with pytest.raises(BadConfiguration, match="403 AuthorizationFailure"):
        engine.upload(engine.file(LARGE))


def test_a_clock_that_is_off_is_named(engine: Sending) -> None:
    """A refusal that comes from the Jetson's wrong clock says so, with the minutes, and passes when the clock is set."""
    engine.endpoint.faults.skew = 3600
    with pytest.raises(StoreAway, match="60 minutes off"):
        engine.upload(engine.file(SMALL))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureBlobs]:
    need(str(AZURITE))
    folder = tmp_path_factory.mktemp("azurite")
    with azurite(folder) as connection, azure_blobs(connection, folder) as store:
        yield store


@pytest.mark.parametrize("size", [SMALL, 0, LARGE])
def test_a_file_gets_past_blocks_that_wait(emulator: AzureBlobs, tmp_path: Path, size: int) -> None:
    """Azurite says that a blob with only uncommitted blocks exists; the upload succeeds all the same."""
    name = f"run/{size}.bin"
    emulator.stage(name, block_id(0, crc64(b"old")), memoryview(b"old"), crc64(b"old"))
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(size))
    transfer = Transfer(emulator, Memory(16 * BLOCK, BLOCK), 4, content_md5=True)
    try:
        upload(transfer, path, name)
    finally:
        transfer._pools.senders.shutdown()
    stored = emulator.head(name)
    assert stored is not None
    assert (stored.size, stored.crc64) == (size, crc64(path.read_bytes()))


@pytest.mark.parametrize("length", [1, 4])
def test_short_ids_that_stay_are_for_a_person(emulator: AzureBlobs, tmp_path: Path, length: int) -> None:
    """The service drops blocks that wait when the blob is written again, Azurite does not: no block gets such an id."""
    name, theirs = f"run/short-{length}.bin", b64encode(b"x" * length).decode()
    emulator.put(name, b"before", Label(6, crc64(b"before"), None, 1, None, 0, "run", "x/y"), None)
    emulator.stage(name, theirs, memoryview(b"old"), crc64(b"old"))
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(LARGE))
    transfer = Transfer(emulator, Memory(16 * BLOCK, BLOCK), 4, content_md5=True)
    try:
        with pytest.raises(StoreRefused, match="delete the blob"):
            upload(transfer, path, name)
    finally:
        transfer._pools.senders.shutdown()
    stored = emulator.head(name)
    assert stored
    assert (stored.size, stored.crc64) == (6, crc64(b"before"))
    assert list(emulator.blocks(name).uncommitted) == [theirs]


def test_a_blob_that_somebody_has_leased_keeps_its_content(emulator: AzureBlobs, tmp_path: Path) -> None:
    """A real lease: the error names it, other names go on, and the file goes when the lease is gone."""
    name = "run/leased.bin"
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(SMALL))
    emulator.put(name, b"before", Label(6, crc64(b"before"), None, 1, None, 0, "run", "x/y"), None)
    transfer = Transfer(emulator, Memory(16 * BLOCK, BLOCK), 4, content_md5=True, on_conflict="replace")
    try:
        with BlobServiceClient.from_connection_string(connection_string(emulator.account)) as service:
            lease = service.get_blob_client(CONTAINER, name).acquire_lease()
            with pytest.raises(StoreError, match=r"412 LeaseIdMissing.*somebody has a lease"):
                upload(transfer, path, name)
            assert (found := emulator.head(name))
            assert found.size == 6
            upload(transfer, path, "run/beside-a-lease.bin")
            lease.release()
        upload(transfer, path, name)
    finally:
        transfer._pools.senders.shutdown()
    assert (found := emulator.head(name))
    assert found.crc64 == crc64(path.read_bytes())


def test_several_files_recover_side_by_side(engine: Sending) -> None:
    """Whatever fault a file meets, its memory and its senders become free for the others."""
    faults = engine.endpoint.faults
    for fault in (Reset(), Reset(after_effect=True), Refuse(503, retry_after=0.01), Do(Store.expire)):
        faults.add(fault, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST, times=4, skip=7)
    paths = [engine.file(20 * BLOCK + number, f"{number}.bin") for number in range(6)]
    ended = [in_thread(lambda path=path: engine.upload(path, f"run/{path.name}")) for path in paths]  # type: ignore[misc]
    for path, end in zip(paths, ended, strict=True):
        if end() is not None:
            engine.upload(path, f"run/{path.name}", retried=True)
        assert engine.holds(path, f"run/{path.name}")

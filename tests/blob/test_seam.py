"""One contract for every store: the fake, our endpoint and Azurite, the last two through the adapter."""

import itertools
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import need
from tests.support.blobs import CONTAINER, ServiceStore, azure_blobs
from tests.support.fake_store import FakeStore
from tests.support.programs import AZURITE, azurite
from uploader.blob import azure
from uploader.blob.azure import AzureBlobs
from uploader.blob.checksum import crc64
from uploader.blob.store import VERSION, BlobStore, Blocks, Label
from uploader.errors import ExpiredBlocks, LeftoverBlocks, Overtaken, StoreRefused
from uploader.upload.block import block_id

_numbers = itertools.count()


@dataclass
class Seam:
    """One store, and a way to read its blobs."""

    store: BlobStore
    content: Callable[[str], bytes]
    connection: str = ""


@contextmanager
def through_the_adapter(connection: str, folder: Path) -> Iterator[Seam]:
    with (
        azure_blobs(connection, folder) as store,
        BlobServiceClient.from_connection_string(connection, retry_total=0) as sdk,
    ):
        yield Seam(store, lambda name: sdk.get_blob_client(CONTAINER, name).download_blob().readall(), connection)


@pytest.fixture(scope="module", params=["fake", "endpoint", "azurite"])
def seam(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seam]:
    folder = tmp_path_factory.mktemp("seam")
    if request.param == "fake":
        fake = FakeStore()
        yield Seam(fake, fake.content)
    elif request.param == "endpoint":
        with Endpoint(ServiceStore()) as endpoint, through_the_adapter(endpoint.connection_string, folder) as made:
            yield made
    else:
        need(str(AZURITE))
        with azurite(folder) as connection, through_the_adapter(connection, folder) as made:
            yield made


@pytest.fixture
def store(seam: Seam) -> BlobStore:
    return seam.store


@pytest.fixture
def name() -> str:
    return f"run/{next(_numbers)}.bin"


def label(data: bytes, *, digest: bool = True, **changes: object) -> Label:
    made = Label(
        size=len(data),
        crc64=crc64(data),
        md5=md5(data).digest() if digest else None,
        inode=4711,
        born=1_690_000_000_987_654_321,
        mtime_ns=1_700_000_000_123_456_789,
        session="run",
        content_type="application/octet-stream",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def staged(store: BlobStore, name: str, *parts: bytes, length: int = 12) -> list[str]:
    """Stage these parts and return their ids."""
    ids = []
    for index, part in enumerate(parts):
        ids.append(block_id(index, crc64(part), length))
        store.stage(name, ids[-1], memoryview(part), crc64(part))
    return ids


def test_what_is_not_there_is_none(store: BlobStore, name: str) -> None:
    """An absent blob is an answer and not an error: the first upload of a name begins with it."""
    assert store.head(name) is None
    assert store.blocks(name) == Blocks({}, [], None)


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("data", [b"content", b""])
def test_a_put_blob_is_described_and_read_as_it_was_written(seam: Seam, name: str, data: bytes, digest: bool) -> None:
    """A blob tells what proves its content; where we send no MD5, the service keeps its own."""
    seam.store.put(name, data, label(data, digest=digest), None)
    found = seam.store.head(name)
    assert found is not None
    assert (found.size, found.crc64, found.inode) == (len(data), crc64(data), "4711")
    assert found.born == "1690000000987654321"
    assert found.md5 == md5(data).digest()
    assert found.holds(label(data))
    assert not found.holds(label(data + b"x"))
    assert seam.content(name) == data
    assert seam.store.blocks(name) == Blocks({}, [], found.etag)


def test_a_birth_time_that_is_not_known_is_not_written(store: BlobStore, name: str) -> None:
    store.put(name, b"content", label(b"content", born=None), None)
    found = store.head(name)
    assert found is not None
    assert found.born is None


@pytest.mark.parametrize("blocks", [False, True])
def test_a_new_label_leaves_the_content_and_its_checksums_alone(seam: Seam, name: str, blocks: bool) -> None:
    """A blob that was found equal to another file names that one from then on."""
    if blocks:
        seam.store.commit(name, staged(seam.store, name, b"con", b"tent"), label(b"content"), None)
    else:
        seam.store.put(name, b"content", label(b"content"), None)
    before = seam.store.head(name)
    assert before is not None
    other = label(b"content", inode=4712, born=5, content_type="x/y")
    assert before.of(label(b"content"))
    assert not before.of(other)
    seam.store.relabel(name, other, before.etag)
    after = seam.store.head(name)
    assert after is not None
    assert after.of(other)
    assert replace(after, etag=before.etag, inode=before.inode, born=before.born, modified=before.modified) == before
    assert after.etag != before.etag
    assert seam.content(name) == b"content"


@pytest.mark.parametrize("blocks", [False, True])
def test_a_snapshot_keeps_content_and_metadata_whatever_becomes_of_the_blob(
    seam: Seam, name: str, blocks: bool
) -> None:
    store = seam.store
    if blocks:
        store.commit(name, staged(store, name, b"con", b"tent"), label(b"content"), None)
    else:
        store.put(name, b"content", label(b"content"), None)
    store.put(f"{name}.longer", b"beside it", label(b"beside it"), None)
    before = store.head(name)
    assert before is not None
    etag = store.annotate(name, {**before.metadata, VERSION: before.version}, before.etag)
    assert etag != before.etag
    with pytest.raises(Overtaken):
        store.snapshot(name, before.etag)
    assert store.snapshots(name) == {}
    snapshot = store.snapshot(name, etag)
    store.put(name, b"other", label(b"other"), etag)
    kept = store.snapshots(name)
    assert list(kept) == [snapshot]
    assert kept[snapshot].same(before)
    found = store.head(name, snapshot)
    assert found is not None
    assert found.same(before)
    assert store.head(name, "2001-01-01T00:00:00.0000000Z") is None
    assert store.head(name, "yes") is None
    assert kept[snapshot].metadata == {**before.metadata, VERSION: before.version}
    assert kept[snapshot].md5 == before.md5
    assert seam.content(name) == b"other"


def test_the_blobs_below_a_prefix_are_listed_as_they_are(seam: Seam, name: str) -> None:
    """Committed ones only, without their snapshots, and with what each was made of."""
    store = seam.store
    for path in "a", "b/ü & <c>", "b/%41":
        store.put(f"{name}/{path}", path.encode(), label(path.encode(), inode=4712), None)
    store.snapshot(f"{name}/a", store.head(f"{name}/a").etag)  # type: ignore[union-attr]
    staged(store, f"{name}/waiting", b"waiting")
    store.put(f"{name}2", b"beside it", label(b"beside it"), None)
    found = dict(store.below(f"{name}/"))
    assert sorted(found) == [f"{name}/{path}" for path in ("a", "b/%41", "b/ü & <c>")]
    for blob, stored in found.items():
        there = store.head(blob)
        assert there is not None
        assert stored.same(there)
        assert (stored.inode, stored.crc64, stored.size) == ("4712", there.crc64, there.size)


def test_a_long_list_comes_in_small_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A page is held in memory as a whole: this program says how large it is, not the service."""
    monkeypatch.setattr(azure, "PAGE", 2)
    with Endpoint(ServiceStore()) as endpoint, through_the_adapter(endpoint.connection_string, tmp_path) as seam:
        for path in "abcde":
            seam.store.put(f"run/{path}", b"", label(b""), None)
        assert [name for name, _ in seam.store.below("run/")] == [f"run/{path}" for path in "abcde"]
        assert len(endpoint.log.of(Operation.LIST_BLOBS)) == 3


def test_a_label_is_written_only_to_the_version_that_was_looked_at(store: BlobStore, name: str) -> None:
    store.put(name, b"first", label(b"first"), None)
    first = store.head(name)
    assert first is not None
    store.put(name, b"other", label(b"other"), first.etag)
    with pytest.raises(Overtaken):
        store.relabel(name, label(b"first", inode=4712), first.etag)
    assert (found := store.head(name))
    assert found.of(label(b"other"))


def test_blocks_are_committed_in_the_order_of_the_list(seam: Seam, name: str) -> None:
    """Blocks may be sent in any order: the commit's list decides the content."""
    first, second = staged(seam.store, name, b"one", b"two")
    assert seam.store.head(name) is None
    assert seam.store.blocks(name) == Blocks({first: 3, second: 3}, [], None)
    whole = b"twoone"
    seam.store.commit(name, [second, first], label(whole), None)
    found = seam.store.head(name)
    assert found is not None
    assert (found.size, found.crc64, found.md5) == (6, crc64(whole), md5(whole).digest())
    assert seam.store.blocks(name) == Blocks({}, [second, first], found.etag)
    assert seam.content(name) == whole


def test_blocks_left_out_of_the_list_are_dropped(store: BlobStore, name: str) -> None:
    """A commit ends all uncommitted blocks of its blob: nothing piles up in the store."""
    first, _ = staged(store, name, b"one", b"two")
    store.commit(name, [first], label(b"one"), None)
    assert not store.blocks(name).uncommitted


def test_a_commit_can_be_repeated_from_committed_blocks(seam: Seam, name: str) -> None:
    """A writer whose reply was lost may commit the same list again."""
    ids = staged(seam.store, name, b"one", b"two")
    seam.store.commit(name, ids, label(b"onetwo"), None)
    found = seam.store.head(name)
    assert found is not None
    seam.store.commit(name, ids, label(b"onetwo"), found.etag)
    assert seam.content(name) == b"onetwo"


@pytest.mark.parametrize("how", ["put", "commit"])
def test_what_must_not_exist_yet_is_not_overwritten(seam: Seam, name: str, how: str) -> None:
    """If-None-Match: * refuses a write when another writer has made the blob since."""
    seam.store.put(name, b"first", label(b"first"), None)
    with pytest.raises(Overtaken):
        write(seam.store, name, b"second", None, how)
    assert seam.content(name) == b"first"


@pytest.mark.parametrize("how", ["put", "commit"])
def test_only_the_version_that_was_seen_is_overwritten(seam: Seam, name: str, how: str) -> None:
    """If-Match refuses a write when the blob has changed since it was looked at."""
    seam.store.put(name, b"first", label(b"first"), None)
    seen = seam.store.head(name)
    assert seen is not None
    write(seam.store, name, b"second", seen.etag, how)
    with pytest.raises(Overtaken):
        write(seam.store, name, b"third", seen.etag, how)
    assert seam.content(name) == b"second"


def write(store: BlobStore, name: str, data: bytes, etag: str | None, how: str) -> None:
    if how == "put":
        store.put(name, data, label(data), etag)
    else:
        store.commit(name, staged(store, name, data), label(data), etag)


@pytest.mark.parametrize("how", ["put", "commit"])
def test_a_version_that_is_gone_is_not_brought_back(store: BlobStore, name: str, how: str) -> None:
    """A blob that someone deleted is not made again by a write that meant to replace it."""
    with pytest.raises(Overtaken):
        write(store, name, b"data", '"0x123"', how)
    assert store.head(name) is None


def test_unknown_blocks_are_expired_ones_and_harm_nothing(seam: Seam, name: str) -> None:
    """The writer learns that it must send its blocks again; the old blob stays."""
    seam.store.put(name, b"good", label(b"good"), None)
    found = seam.store.head(name)
    assert found is not None
    staged(seam.store, name, b"one")
    with pytest.raises(ExpiredBlocks):
        seam.store.commit(name, [block_id(7, 7)], label(b"bad!"), found.etag)
    assert seam.content(name) == b"good"


@pytest.mark.parametrize("length", [8, 32, 64])
def test_leftover_ids_of_another_length_are_told_apart(seam: Seam, name: str, length: int) -> None:
    """The service wants ids of one length: the writer learns of it, and succeeds with that length."""
    theirs = b64encode(b"x" * length).decode()
    seam.store.stage(name, theirs, memoryview(b"old"), crc64(b"old"))
    assert seam.store.blocks(name).id_length(12) == length
    with pytest.raises(LeftoverBlocks):
        staged(seam.store, name, b"new")
    ids = staged(seam.store, name, b"new", b"er", length=length)
    seam.store.commit(name, ids, label(b"newer"), None)
    assert seam.content(name) == b"newer"


def test_a_wrong_checksum_is_refused(store: BlobStore, name: str) -> None:
    """Content that was damaged on the way is never stored."""
    with pytest.raises(StoreRefused):
        store.stage(name, block_id(0, 1), memoryview(b"data"), 1)
    with pytest.raises(StoreRefused):
        store.put(name, b"data", label(b"data", digest=False, crc64=1), None)
    with pytest.raises(StoreRefused):
        store.put(name, b"data", label(b"data", md5=md5(b"date").digest()), None)
    assert store.blocks(name) == Blocks({}, [], None)


def test_discard_drops_what_waits_and_leaves_nothing_behind(store: BlobStore, name: str) -> None:
    """Leftover blocks of a name without a blob can be removed, and no empty blob stays."""
    staged(store, name, b"one", b"two")
    store.discard(name, store.blocks(name))
    assert store.blocks(name) == Blocks({}, [], None)
    assert store.head(name) is None


def test_discard_leaves_a_committed_blob_as_it_is(seam: Seam, name: str) -> None:
    """Content, metadata and MD5 are the same afterwards."""
    seam.store.commit(name, staged(seam.store, name, b"one", b"two"), label(b"onetwo"), None)
    before = seam.store.head(name)
    staged(seam.store, name, b"three", b"four", b"five")
    seam.store.discard(name, seam.store.blocks(name))
    after = seam.store.head(name)
    assert before is not None
    assert after is not None
    assert replace(after, etag="", modified="") == replace(before, etag="", modified="")
    assert seam.content(name) == b"onetwo"
    assert not seam.store.blocks(name).uncommitted


def test_discard_keeps_the_content_when_waiting_blocks_bear_the_same_ids(seam: Seam, name: str) -> None:
    """Another tool that numbers its blocks was killed while it sent its file again."""
    ids = [b64encode(b"%04d" % number).decode() for number in range(2)]
    for waiting in (False, True):
        for block in ids:
            data = b"new" if waiting else b"old"
            seam.store.stage(name, block, memoryview(data), crc64(data))
        if not waiting:
            seam.store.commit(name, ids, label(b"oldold"), None)
    assert seam.store.blocks(name).uncommitted == dict.fromkeys(ids, 3)
    seam.store.discard(name, seam.store.blocks(name))
    assert seam.content(name) == b"oldold"
    assert not seam.store.blocks(name).uncommitted
    assert seam.store.blocks(name).committed == ids


def test_a_commit_takes_the_block_that_waits_before_the_one_of_the_same_id_that_is_committed(
    seam: Seam, name: str
) -> None:
    """A name that is sent again with the same ids gets the new content."""
    ids = staged(seam.store, name, b"old")
    seam.store.commit(name, ids, label(b"old"), None)
    seam.store.stage(name, ids[0], memoryview(b"new"), crc64(b"new"))
    seam.store.commit(name, ids, label(b"new"), seam.store.blocks(name).etag)
    assert seam.content(name) == b"new"


def test_discard_never_touches_a_blob_that_has_changed_since(seam: Seam, name: str) -> None:
    """Another writer's commit between the look and the discard wins."""
    staged(seam.store, name, b"one")
    seen = seam.store.blocks(name)
    seam.store.commit(name, staged(seam.store, name, b"theirs"), label(b"theirs"), None)
    with pytest.raises(Overtaken):
        seam.store.discard(name, seen)
    assert seam.content(name) == b"theirs"


@pytest.mark.parametrize("seam", ["azurite"], indirect=True)
def test_discard_never_deletes_what_another_wrote_meanwhile(
    seam: Seam, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty blob that drops the blocks is deleted only while it is still empty (I9)."""
    staged(seam.store, name, b"one")
    commit = AzureBlobs._commit

    def commit_then_another(*args: Any) -> Any:
        made = commit(*args)
        monkeypatch.undo()
        empty = seam.store.head(name)
        assert empty is not None
        seam.store.put(name, b"theirs", label(b"theirs"), empty.etag)
        return made

    monkeypatch.setattr(AzureBlobs, "_commit", commit_then_another)
    with suppress(Overtaken):
        seam.store.discard(name, seam.store.blocks(name))
    assert seam.content(name) == b"theirs"


def test_discard_leaves_content_without_blocks_as_it_is(seam: Seam, name: str, request: pytest.FixtureRequest) -> None:
    """A blob made by Put Blob has no blocks that a commit could name: it is sent again, which drops what waits.

    Azurite keeps the blocks that wait, unlike the service.
    """
    seam.store.put(name, b"whole", label(b"whole", content_type="x/y"), None)
    before = seam.store.head(name)
    staged(seam.store, name, b"one", length=4)
    seam.store.discard(name, seam.store.blocks(name))
    after = seam.store.head(name)
    assert before
    assert after
    assert replace(after, etag="", modified="") == replace(before, etag="", modified="")
    assert after.metadata == before.metadata
    assert seam.content(name) == b"whole"
    left = seam.store.blocks(name)
    assert left == Blocks(left.uncommitted if "azurite" in request.node.name else {}, [], after.etag)


def test_discard_never_touches_content_without_blocks_that_has_changed_since(seam: Seam, name: str) -> None:
    seam.store.put(name, b"whole", label(b"whole"), None)
    staged(seam.store, name, b"one")
    seen = seam.store.blocks(name)
    seam.store.put(name, b"theirs", label(b"theirs"), seen.etag)
    with pytest.raises(Overtaken):
        seam.store.discard(name, seen)
    assert seam.content(name) == b"theirs"


ODD = [
    "two words.bin",
    " leading and trailing ",
    "100%.bin",
    "%41.bin",
    "a+b.bin",
    "a#b.bin",
    "a?b=c&d.bin",
    "a;b,c=d@e:f$g!h'i(j)[k]{l}^m`n|o~p",
    'a"b<c>d*e',
    "größe.bin",
    "gro\u0308ße.bin",
    "日本語.bin",
    "🦀.bin",
    ".../x.bin",
    "a.b/c..d",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_are_kept_apart_and_as_they_are(seam: Seam, odd: str) -> None:
    """NFC and NFD, "%41" and "A": each is a blob of its own."""
    name, data = f"odd/{odd}", odd.encode()
    seam.store.put(name, data, label(data), None)
    assert seam.content(name) == data
    found = seam.store.head(name)
    assert found is not None
    assert found.holds(label(data))
    seam.store.commit(name, staged(seam.store, name, data, data), label(data * 2), found.etag)
    assert seam.content(name) == data * 2


def test_a_content_type_and_a_session_do_not_disturb(seam: Seam, name: str) -> None:
    """Any allowed label leaves the content as it is."""
    data = b"{}"
    seam.store.put(name, data, label(data, content_type="application/json", session="a.b-c_d"), None)
    assert seam.content(name) == data


def test_a_block_can_be_any_kind_of_buffer(seam: Seam, name: str) -> None:
    """Blocks are windows into buffers that are used again as soon as the call returns."""
    buffer = bytearray(b"0123456789" * 400_000)
    window = memoryview(buffer)[10:3_000_000]
    block = block_id(0, crc64(window))
    seam.store.stage(name, block, window, crc64(window))
    expected = bytes(window)
    buffer[:] = bytes(len(buffer))
    seam.store.commit(name, [block], label(expected), None)
    assert seam.content(name) == expected


def test_two_services_that_differ_only_in_checksum_hold_the_same(seam: Seam, name: str, tmp_path: Path) -> None:
    """With NFS_WATCH_CHECKSUM=md5 the ids are still those of the CRC64: two shards can resume each other's work."""
    if not seam.connection:
        return  # the fake has one checksum
    with azure_blobs(seam.connection, tmp_path, checksum="md5") as other:
        ids = staged(other, name, b"one", b"two")
        assert seam.store.blocks(name).uncommitted == dict.fromkeys(ids, 3)
        seam.store.commit(name, ids, label(b"onetwo"), None)
        found = seam.store.head(name)
        assert found is not None
        other.put(name, b"three", label(b"three", digest=False), found.etag)
        assert seam.content(name) == b"three"


@pytest.mark.parametrize("checksum", ["crc64", "md5"])
@pytest.mark.parametrize("digest", [True, False])
def test_every_body_has_one_checksum_in_a_header_that_any_endpoint_verifies(
    tmp_path: Path, name: str, checksum: str, *, digest: bool
) -> None:
    """x-ms-blob-content-md5 alone does not count: older Azurite stores it without a check."""
    with Endpoint(ServiceStore()) as endpoint:
        with azure_blobs(endpoint.connection_string, tmp_path, checksum=checksum) as store:
            store.put(name, b"put", label(b"put", digest=digest), None)
            found = store.head(name)
            assert found
            store.commit(name, staged(store, name, b"one", b"two"), label(b"onetwo", digest=digest), found.etag)
            staged(store, name, b"three")
            store.discard(name, store.blocks(name))
        operations = Operation.PUT_BLOB, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST
        sent = [request for operation in operations for request in endpoint.log.of(operation)]
        assert len(sent) == 6
        for request in sent:
            verified = [it for it in ("Content-MD5", "x-ms-content-crc64") if it in request.headers]
            whole = request.operation is Operation.PUT_BLOB and digest
            assert verified == ["Content-MD5" if whole or checksum == "md5" else "x-ms-content-crc64"]

"""What is sent with each file, and what is never committed: changed files (I2) and short ones (I3)."""

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.faults import Do
from tests.endpoint.request import Operation, Request
from tests.support.blobs import CONTAINER
from tests.upload.sending import BLOCK, NAME, Sending, in_thread, sending, taken, upload
from uploader.blob.checksum import crc64, crc64_header, md5_header
from uploader.blob.store import rfc3339
from uploader.blob.transport import ThreadTransport
from uploader.errors import Cancelled, NotEligible, ShortRead, StoreRefused, Unsettled
from uploader.share.fingerprint import Fingerprint
from uploader.upload.block import MAX_BLOCKS, block_id, block_size
from uploader.upload.memory import Memory
from uploader.upload.transfer import Transfer

SMALL, LARGE = 1000, 3 * BLOCK + 17
PUTS = (Operation.PUT_BLOB, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST)
MIB = 1024 * 1024


def writes(engine: Sending) -> list[Request]:
    return [request for operation in PUTS for request in engine.endpoint.log.of(operation)]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 40 * BLOCK + 5])
@pytest.mark.parametrize("content_md5", [True, False])
@pytest.mark.parametrize("checksum", ["crc64", "md5"])
def test_every_size_arrives_whole_and_every_write_is_verified(
    tmp_path: Path, size: int, content_md5: bool, checksum: str
) -> None:
    """Each body comes with one checksum, which the service compares with what it received."""
    with sending(tmp_path, content_md5=content_md5, checksum=checksum) as engine:
        path = engine.file(size)
        engine.upload(path)
        assert engine.blob().content == path.read_bytes()
        for request in writes(engine):
            crc, md5 = request.headers.get("x-ms-content-crc64"), request.headers.get("Content-MD5")
            if request.operation is Operation.PUT_BLOB:
                md5 = request.headers.get("x-ms-blob-content-md5") or md5
            assert bool(crc) != bool(md5), "one checksum, and only one, is what the service takes"
            if checksum == "md5":
                assert md5
            elif request.operation is not Operation.PUT_BLOB or not content_md5:
                assert crc
        assert sum(engine.sent) == size
        assert len(engine.endpoint.log.of(Operation.PUT_BLOB)) == (1 if size <= BLOCK else 0)


def test_a_body_that_is_damaged_on_the_way_is_refused(engine: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong bit in one piece: the service refuses the body, the file fails, and nothing is committed."""
    pieces = ThreadTransport._pieces

    def damaged(*args: Any) -> Iterator[memoryview]:
        for piece in pieces(*args):
            yield memoryview(bytes([piece[0] ^ 1]) + piece[1:])

    monkeypatch.setattr(ThreadTransport, "_pieces", damaged)
    with sending(engine.root, engine.endpoint, max_upload_rate=1 << 30) as damaging:
        for size in (SMALL, LARGE):
            with pytest.raises(StoreRefused, match=r"Crc64Mismatch|Md5Mismatch"):
                damaging.upload(engine.file(size))
    assert not engine.blobs()


def born(path: Path) -> int | None:
    with taken(path) as file:
        return file.born()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("content_md5", [True, False])
def test_the_label(tmp_path: Path, size: int, content_md5: bool) -> None:
    """CRC64 and MD5 of the whole, mtime to the nanosecond, inode and birth, session, content type."""
    with sending(tmp_path, content_md5=content_md5) as engine:
        path = engine.file(size, "table.csv")
        os.utime(path, ns=(0, 1_700_000_000_987_654_321))
        engine.upload(path, "run/table.csv")
        blob, data = engine.blob("run/table.csv"), path.read_bytes()
        assert blob.metadata == {
            "crc64": crc64_header(crc64(data)),
            "mtime": "2023-11-14T22:13:20.987654321Z",
            "inode": str(path.stat().st_ino),
            "born": str(born(path)),
            "session": "run",
        }
        assert blob.headers["Content-Type"] == "text/csv"
        if content_md5 or size == SMALL:  # the service keeps the MD5 of a Put Blob by itself
            assert b64decode(blob.headers["Content-MD5"]) == hashlib.md5(data).digest()
        else:
            assert "Content-MD5" not in blob.headers


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.bin", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.json", "application/json"),
        ("a.csv.gz", "application/octet-stream"),
        ("größe 100%.html", "text/html"),
        ("data:text,x.html", "text/html"),
    ],
)
def test_the_content_type_is_that_of_the_name(engine: Sending, name: str, kind: str) -> None:
    """A browser that opens the blob gets a type by its ending; a compressed file is not called text."""
    engine.upload(engine.file(SMALL), f"run/{name}")
    assert engine.blob(f"run/{name}").headers["Content-Type"] == kind


def test_a_blocks_id_is_its_index_and_its_content(engine: Sending) -> None:
    """All ids have one length, and a later process or another machine computes the same ids."""
    path = engine.file(LARGE)
    engine.upload(path)
    data = path.read_bytes()
    expected = [
        b64encode(index.to_bytes(4, "big") + crc64(data[index * BLOCK :][:BLOCK]).to_bytes(8, "big")).decode()
        for index in range(4)
    ]
    assert [block.name for block in engine.blob().committed or []] == expected


def test_ids_of_any_length_tell_indexes_and_contents_apart() -> None:
    """Leftovers may force ids of 6 to 64 bytes: two blocks still never share an id."""
    for length in range(6, 65):
        ids = {block_id(index, crc, length) for index in (0, 1, 255, 256, MAX_BLOCKS - 1) for crc in (0, 2**63, 2**33)}
        assert len(ids) == 15
        assert {len(b64decode(each)) for each in ids} == {length}


def test_blocks_grow_only_where_the_limit_of_blocks_needs_it() -> None:
    """A blob has at most 50,000 blocks, so 8 MiB are enough for 390 GiB; larger files get larger blocks."""
    assert block_size(10**10, 8 * MIB) == 8 * MIB
    assert block_size(10**10, 256 * 1024) == 256 * 1024
    assert block_size(MAX_BLOCKS * 8 * MIB, 8 * MIB) == 8 * MIB
    assert block_size(MAX_BLOCKS * 8 * MIB + 1, 8 * MIB) == 9 * MIB
    for size in (10**10, 10**12, 2 * 10**14):
        assert -(-size // block_size(size, 64 * 1024)) <= MAX_BLOCKS


def test_a_block_that_the_memory_can_never_hold_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A wait for that much memory would never end, and would hold up all other files."""
    with sending(tmp_path, block_size=64 * 1024, memory=MIB) as engine:
        path = engine.file(SMALL)
        with path.open("r+b") as file:
            file.truncate(MAX_BLOCKS * 64 * 1024 * 40)  # 125 GiB, and no byte of it on the disk
        error = in_thread(lambda: engine.upload(path))()
        assert isinstance(error, NotEligible)
        assert "NFS_WATCH_MEMORY" in str(error)


def test_times_before_and_after_the_epoch_are_written_in_full() -> None:
    """The label's mtime can be read back to the nanosecond, before 1970 too."""
    assert rfc3339(-1) == "1969-12-31T23:59:59.999999999Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000000Z"


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"else")


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(path)


CHANGES = [append, overwrite, truncate, replace]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", [Operation.GET_BLOCK_LIST, Operation.PUT_BLOCK])
@pytest.mark.parametrize("late", [0, 3])
def test_a_large_file_that_changes_while_it_is_read_is_not_committed(
    engine: Sending, change: Callable[[Path], None], when: Operation, late: int
) -> None:
    """I2: a change at the start, midway or with the last block commits nothing; an earlier blob stays."""
    path = engine.file(LARGE)
    skip = late if when is Operation.PUT_BLOCK else 0
    engine.endpoint.faults.add(Do(lambda _: change(path)), when, skip=skip)
    with pytest.raises(Unsettled):
        engine.upload(path)
    assert not engine.blobs()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_before_it_was_read_is_not_committed(
    engine: Sending, change: Callable[[Path], None], size: int
) -> None:
    """I2: between the look and the read. What comes after a small file's one read, the sweeper finds (I1)."""
    path = engine.file(size)
    if change is replace and size == SMALL:
        return  # the open file is the old one, whole; the name is looked at only before something is overwritten
    with taken(path) as before:
        change(path)
        with pytest.raises(Unsettled):
            engine.upload(path, file=before)
    assert not engine.blobs()


def test_a_changed_file_is_not_found_present(engine: Sending) -> None:
    """The shortcut after a crash compares the file with its look a second time as well."""
    path = engine.file(LARGE)
    engine.upload(path)
    engine.endpoint.faults.add(Do(lambda _: os.utime(path)), Operation.HEAD_BLOB)
    with pytest.raises(Unsettled):
        engine.upload(path, retried=True)


@pytest.mark.parametrize("block", [64, 8192])
def test_a_short_read_is_an_error_and_never_a_short_blob(tmp_path: Path, block: int) -> None:
    """I3, from the kernel: sysfs files claim a page and end earlier, with inode, size and mtime unchanged."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists():
        path = Path("/sys/devices/system/cpu/possible")
    with sending(tmp_path) as engine:
        transfer = Transfer(engine.store, Memory(1 << 20, block), 4, content_md5=True)
        size = path.stat().st_size
        assert size > len(path.read_bytes())
        with pytest.raises(ShortRead, match=f"of {size} bytes"):
            upload(transfer, path, NAME)
        with pytest.raises(ShortRead):
            upload(transfer, path, NAME, retried=True)
        assert not engine.blobs()
        assert transfer.memory.free == transfer.memory.most
        transfer._pools.senders.shutdown()


def test_a_session_that_ends_stops_its_upload(engine: Sending) -> None:
    """The upload ends soon and commits nothing; the blocks that were sent stay for the next try."""
    path = engine.file(60 * BLOCK)
    engine.endpoint.faults.latency = 0.02
    engine.endpoint.faults.add(Do(lambda _: engine.cancelled.set()), Operation.PUT_BLOCK, skip=10)
    with pytest.raises(Cancelled):
        engine.upload(path)
    assert not engine.blobs()
    assert 10 <= len(engine.endpoint.store.container(CONTAINER)[NAME].uncommitted) < 30
    with pytest.raises(Cancelled):
        engine.upload(path, retried=True)


@pytest.mark.parametrize("size", [SMALL, LARGE, 0])
def test_what_is_there_already_is_not_sent(engine: Sending, size: int) -> None:
    """A blob of the same length and CRC64 needs no upload, and the file counts as sent."""
    path = engine.file(size)
    engine.upload(path)
    engine.endpoint.log.clear()
    engine.sent.clear()
    engine.upload(path, retried=True)
    assert not writes(engine)
    assert sum(engine.sent) == size


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_only_has_the_same_length_is_sent(engine: Sending, size: int) -> None:
    """Equal length proves nothing: the CRC64 decides."""
    engine.upload(engine.file(size))
    path = engine.file(size)
    engine.upload(path, retried=True)
    assert engine.holds(path)


@pytest.mark.parametrize("md5", [True, False])
def test_a_blob_of_another_tool_is_this_file_only_by_its_md5(engine: Sending, md5: bool) -> None:
    """Without our CRC64, or with nonsense in its place; without either nothing is known of it, and it is kept."""
    path = engine.file(SMALL)
    for metadata in ({}, {"crc64": "%%%"}, {"crc64": "AAAA"}):
        store = engine.endpoint.store
        engine.upload(path)
        blob = store.blob(CONTAINER, NAME)
        blob.metadata = dict(metadata)
        engine.endpoint.log.clear()
        blob.headers = blob.headers if md5 else {}
        engine.upload(path, retried=True)
        assert bool(writes(engine)) == (not md5)
        assert engine.holds(path)
    assert len(engine.endpoint.store.kept(CONTAINER, NAME)) == (0 if md5 else 3)


def test_uploads_side_by_side_share_nothing_but_the_senders(engine: Sending) -> None:
    """Buffers are used again and again; no file ever gets another's bytes."""
    paths = [engine.file(size * BLOCK + size, f"{size}.bin") for size in (1, 30, 7, 25, 13, 40)]
    ended = [in_thread(lambda path=path: engine.upload(path, f"run/{path.name}")) for path in paths]  # type: ignore[misc]
    assert [end() for end in ended] == [None] * 6
    for path in paths:
        assert engine.holds(path, f"run/{path.name}")


def test_the_ctime_alone_may_differ_after_a_step_of_our_own() -> None:
    look = Fingerprint(1, 2, 3, 4)
    assert look != Fingerprint(1, 2, 3, 5)
    assert look.same_but_ctime(Fingerprint(1, 2, 3, 5))
    others = [Fingerprint(0, 2, 3, 4), Fingerprint(1, 0, 3, 4), Fingerprint(1, 2, 0, 4)]
    assert not any(look.same_but_ctime(other) for other in others)


@pytest.mark.parametrize(
    ("mtime", "ctime", "coarse"),
    [(7, 9, False), (9, 9, True), (9, 7, False), (1_000_000_007, 2_000_000_000, True)],
    ids=["a later step", "the same tick", "a time to come", "whole seconds"],
)
def test_times_that_a_write_just_afterwards_may_not_move_are_coarse(mtime: int, ctime: int, coarse: bool) -> None:
    assert Fingerprint(1, 2, mtime, ctime).coarse is coarse


def test_md5_and_crc64_are_written_as_headers_want_them() -> None:
    """Base64 with CRC64 in little-endian order: the service refuses any other form."""
    assert crc64_header(crc64(b"123456789")) == "iJh5CoYUi64="
    assert md5_header(b"") == "1B2M2Y8AsgTpgAmY7PhCfg=="

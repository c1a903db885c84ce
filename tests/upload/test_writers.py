"""Two writers of one blob name (I9): work may be wasted; contents are never mixed, and older never replaces newer."""

from pathlib import Path

import pytest

from tests.endpoint.faults import Do, Refuse
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Block, Store
from tests.support.blobs import CONTAINER, ServiceStore
from tests.upload.sending import BLOCK, NAME, Sending, in_thread, sending, taken
from uploader.blob.checksum import crc64
from uploader.errors import Overtaken, StoreRefused, Unsettled
from uploader.upload.block import block_id

SMALL, LARGE = 1000, 9 * BLOCK + 1
LAST = (Operation.PUT_BLOB, Operation.PUT_BLOCK_LIST)


@pytest.mark.parametrize("leftover", [None, 4, 6, 8, 30])
def test_two_large_files_of_one_name_are_never_mixed(tmp_path: Path, leftover: int | None) -> None:
    """In whatever order blocks and commits come, and whatever ids an older tool left: the blob is one of the files."""
    with Endpoint(ServiceStore()) as endpoint, sending(tmp_path, endpoint) as one, sending(tmp_path, endpoint) as two:
        paths = [one.file(LARGE, "one.bin"), one.file(LARGE, "two.bin")]
        for number in range(8):
            name = f"run/{number}.bin"
            if leftover:
                theirs = block_id(0, 0, leftover)
                endpoint.store.put_block(CONTAINER, name, Block(theirs, 3, crc64(b"old"), b"old"))
            endpoint.faults.latency = number * 0.0005
            ended = [
                in_thread(lambda engine=engine, path=path, name=name: engine.upload(path, name))  # type: ignore[misc]
                for engine, path in zip((one, two), paths, strict=True)
            ]
            raised = [end() for end in ended]
            assert None in raised, "neither got through"
            assert all(isinstance(each, Overtaken | StoreRefused | None) for each in raised), raised
            stored = one.store.head(name)
            winner = paths[raised.index(None)] if raised.count(None) == 1 else None
            assert stored is not None
            content = endpoint.store.blob(CONTAINER, name).content
            assert crc64(content) == stored.crc64, "the contents are mixed"
            assert content in {path.read_bytes() for path in paths}
            assert winner is None or content == winner.read_bytes()


@pytest.mark.parametrize("length", [6, 8, 11])
def test_a_block_of_another_writer_under_a_short_id_is_not_taken_for_ours(engine: Sending, length: int) -> None:
    """The worst moment: both found short ids there and stage in turn, then one of them commits."""
    theirs = block_id(0, 0, length)
    engine.endpoint.store.put_block(CONTAINER, NAME, Block(theirs, 3, crc64(b"old"), b"old"))
    path = engine.file(3 * BLOCK)
    other = bytes(BLOCK)

    def other_writer(store: Store) -> None:
        store.put_block(CONTAINER, NAME, Block(block_id(1, crc64(other), length), BLOCK, crc64(other), other))

    engine.endpoint.faults.add(Do(other_writer), Operation.PUT_BLOCK_LIST)
    engine.upload(path)
    assert engine.holds(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("newer", [SMALL, LARGE])
def test_older_content_that_comes_late_replaces_nothing(tmp_path: Path, size: int, newer: int) -> None:
    """Another shard has finished this file and a newer one of its name while ours was on its way."""
    with (
        Endpoint(ServiceStore()) as endpoint,
        sending(tmp_path, endpoint) as late,
        sending(tmp_path, endpoint) as quick,
    ):
        path, new = late.file(size), late.file(newer, "new.bin")

        def meanwhile(_: Store) -> None:
            new.rename(path)
            quick.upload(path)

        endpoint.faults.add(Do(meanwhile), *LAST)
        with pytest.raises((Overtaken, Unsettled)):
            late.upload(path)
        assert late.holds(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_older_content_that_starts_late_replaces_nothing(engine: Sending, size: int) -> None:
    """The newer blob is there from the start; only the name on the share shows that our file is the older."""
    path, new = engine.file(size), engine.file(size + 1, "new.bin")
    with taken(path) as old:
        new.rename(path)
        engine.upload(path)
        with pytest.raises(Unsettled):
            engine.upload(path, file=old)
    assert engine.holds(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_newer_file_replaces_what_is_there(engine: Sending, size: int) -> None:
    """A producer may write the same name again: the latest content is what the store ends with."""
    for _ in range(3):
        path = engine.file(size)
        engine.upload(path)
        assert engine.holds(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_blob_that_changes_between_look_and_write_is_left_alone(engine: Sending, size: int) -> None:
    """Another tool's blob, written just before our commit, is not overwritten; ours is tried again later."""
    engine.upload(engine.file(size))

    def another_tool(store: Store) -> None:
        block = Block("", 6, crc64(b"theirs"), b"theirs")
        store.put_blob(CONTAINER, NAME, block, {}, {})

    skip = 1 if size == SMALL else 0  # the first Put Blob finds that there is one
    engine.endpoint.faults.add(Do(another_tool), *LAST, skip=skip)
    with pytest.raises(Overtaken):
        engine.upload(engine.file(size))
    assert engine.blob().content == b"theirs"


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_another_shards_work_is_not_done_twice(tmp_path: Path, size: int) -> None:
    """Both send the same file: the later one finds its own content in the store and is done."""
    with (
        Endpoint(ServiceStore()) as endpoint,
        sending(tmp_path, endpoint) as late,
        sending(tmp_path, endpoint) as quick,
    ):
        path = late.file(size)
        endpoint.faults.add(Do(lambda _: quick.upload(path)), *LAST)
        late.upload(path)
        assert late.holds(path)
        assert late.blob().etag == '"0x000000000000001"', "it was written twice"


def test_two_shards_share_the_blocks_of_one_file(tmp_path: Path) -> None:
    """An id tells a block's content, so a second shard does not send the blocks that the first has sent."""
    with Endpoint(ServiceStore()) as endpoint, sending(tmp_path, endpoint) as one, sending(tmp_path, endpoint) as two:
        path = one.file(LARGE)
        endpoint.faults.add(Refuse(403), Operation.PUT_BLOCK_LIST)
        with pytest.raises(Exception, match="403"):
            one.upload(path)
        endpoint.log.clear()
        two.upload(path)
        assert two.count(Operation.PUT_BLOCK) == 0
        assert two.holds(path)

"""I3: a short read is an error, never a short blob."""

import os
from collections.abc import Callable

import pytest

from tests.invariants.bed import BLOCK, NFS, Bed
from uploader.blob.checksum import crc64
from uploader.share import handle
from uploader.share.fingerprint import Fingerprint, look_at
from uploader.share.handle import Handle
from uploader.upload.block import block_id

SIZES = [1000, BLOCK, 3 * BLOCK + 1]


@pytest.mark.parametrize("size", SIZES)
def test_reads_that_give_less_than_asked_are_read_on(bed: Bed, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may return any part of what was asked for: the blob is whole all the same."""
    content = os.urandom(size)
    bed.write("x", content)
    item = bed.item("x")
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, count, at: pread(fd, min(count, 777), at))
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: preadv(fd, [views[0][:777]], at))
    bed.handle(item)
    assert bed.content("x") == content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("missing", [1, 900])
def test_a_file_that_ends_before_its_size_is_not_committed(
    make: Callable[..., Bed], size: int, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fstat still says the old size, as NFS' attribute cache may."""
    bed = make(tells=NFS)
    bed.write("x", os.urandom(size))
    item = bed.item("x")
    opened: list[Fingerprint] = []

    def remembered(fd: int) -> Fingerprint:
        return opened[0] if opened else look_at(fd)

    def shortened(file: Handle) -> None:
        opened.append(file.now)
        os.truncate(bed.folder / "x.processing", size - missing)

    monkeypatch.setattr(handle, "look_at", remembered)
    monkeypatch.setattr(Handle, "begin", shortened)
    bed.handle(item)
    assert bed.store.writes == []
    assert "ended after" in bed.error("x")


def test_a_block_that_bears_our_id_and_is_not_as_long_is_sent_again(bed: Bed) -> None:
    """An id fixes a block's content and so its length: a staged block of another length is not trusted."""
    content = os.urandom(3 * BLOCK + 1)
    bed.write("x", content)
    for index in range(3):
        theirs = memoryview(content)[index * BLOCK : (index + 1) * BLOCK - (index == 1)]
        ours = crc64(content[index * BLOCK : (index + 1) * BLOCK])
        bed.store.stage("run/x", block_id(index, ours), theirs, crc64(theirs))
    sent: list[str] = []
    bed.store.before["stage"] = sent.append
    bed.upload("x")
    assert bed.content("x") == content
    assert len(sent) == 2, "the block that is too short, and the missing one"

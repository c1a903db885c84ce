"""The limits of a name, a path, the depth of folders and the number of a blob's blocks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.invariants.bed import Bed
from uploader.naming import MAX_CHARACTERS, MAX_PARTS
from uploader.share.scan import MAX_NAME
from uploader.upload.block import MAX_BLOCKS, block_size

MIB = 1024 * 1024
ROOM = MAX_NAME - len(".processing")


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def cycle(bed: Bed) -> None:
    bed.scan()
    bed.work()
    bed.walk()


@pytest.mark.parametrize("letter", ["x", "ü", "数", "🚀"])
def test_the_longest_name_that_can_be_claimed_is_sent_and_one_byte_more_is_shown(bed: Bed, letter: str) -> None:
    """A file name has 255 bytes, with the suffix; a longer one fails visibly and alone."""
    width = len(letter.encode())
    fits = letter * (ROOM // width) + "a" * (ROOM % width)
    bed.write(fits, b"fits")
    bed.write(fits + "a", b"too long")
    bed.write("other.bin", b"goes on")
    cycle(bed)
    assert bed.content(fits) == b"fits"
    assert bed.content("other.bin") == b"goes on"
    assert bed.names() == [fits + "a"]
    assert "255 bytes" in bed.error(fits + "a")


def test_the_longest_path_is_that_of_a_blob(bed: Bed) -> None:
    """A blob's name has at most 1024 characters: a longer path fails visibly and alone."""
    room = MAX_CHARACTERS - len("run/")
    folders = "/".join(["f" * 99] * 10)
    fits = f"{folders}/{'x' * (room - len(folders) - 1)}"
    bed.write(fits, b"fits")
    bed.write(fits + "x", b"too long")
    cycle(bed)
    assert bed.content(fits) == b"fits"
    assert bed.names() == [fits + "x"]
    assert "1021 characters" in bed.error(fits + "x")


def test_folders_as_deep_as_a_blobs_name_can_be(bed: Bed) -> None:
    """A file below one folder more is shown: tests/invariants/test_i13_all_accounted.py."""
    path = "/".join(["d"] * (MAX_PARTS - 2)) + "/x.bin"
    bed.write(path, b"deep")
    cycle(bed)
    assert bed.content(path) == b"deep"
    assert bed.names() == []


def test_more_files_than_the_queue_holds_come_in_turns(tmp_path: Path) -> None:
    """A full queue delays the scan; no file is left out."""
    bed = Bed(tmp_path, queue_size=7)
    try:
        for number in range(30):
            bed.write(f"{number}.bin", b"x")
        bed.backlog.small.wait_for_room = lambda files, timeout: bed.work()  # type: ignore[method-assign]  # noqa: ARG005
        cycle(bed)
        assert len(bed.store.writes) == 30
    finally:
        bed.close()


@pytest.mark.parametrize("size", [10 * 1024**3, 390 * 1024**3, 1024**4, 190 * 1024**4])
def test_a_blob_never_has_more_blocks_than_the_service_allows(size: int) -> None:
    """Blocks grow with the file; 190 TiB is about the service's limit: 50,000 blocks of 4,000 MiB."""
    assert -(-size // block_size(size, 8 * MIB)) <= MAX_BLOCKS
    assert block_size(10 * 1024**3, 8 * MIB) == 8 * MIB
    assert block_size(190 * 1024**4, 8 * MIB) <= 4000 * MIB

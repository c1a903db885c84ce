"""Blocks of different sizes fit together, whatever a killed process has left, and are never too many."""

import random

import pytest

from uploader.upload.block import MAX_BLOCKS, MIB, SMALLEST, Layout, block_id

GIB = 1024 * MIB


def cut(layout: Layout, *wanted: int) -> list[tuple[int, int]]:
    """Return begin and length of all blocks of a file; what is wanted of each in turn, the last for all others."""
    blocks: list[tuple[int, int]] = []
    begin = 0
    while begin < layout.size:
        length = layout.length(begin, len(blocks), wanted[min(len(blocks), len(wanted) - 1)])
        blocks.append((begin, length))
        begin += length
    assert begin == layout.size
    return blocks


def ids(layout: Layout, blocks: list[tuple[int, int]]) -> dict[str, int]:
    """Return what the store lists: the CRC64 is told by the place and the length."""
    return {block_id(begin // layout.unit, begin ^ length): length for begin, length in blocks}


def test_a_block_is_as_large_as_the_line_wants_it() -> None:
    """Halves of the setting from 256 KiB on; a setting that is smaller, or odd, is not divided."""
    sizes = [length for _, length in cut(Layout(100 * MIB, 8 * MIB), 0, 300_000, MIB, 5 * MIB, 10**9)]
    assert sizes[:5] == [SMALLEST, SMALLEST, MIB, 4 * MIB, 8 * MIB]
    assert set(sizes[5:-1]) == {8 * MIB}
    for setting in (SMALLEST, 64 * 1024, 8 * MIB + 1):
        assert {length for _, length in cut(Layout(3 * setting, setting), 0)} == {setting}


@pytest.mark.parametrize("size", [1, 12 * GIB, 13 * GIB, 40 * GIB, 390 * GIB, 400 * GIB, 2**47])
def test_a_file_on_a_slow_line_has_not_too_many_blocks(size: int) -> None:
    """A blob has at most 50,000, so blocks grow with the file even where the line wants the smallest."""
    layout = Layout(size, 8 * MIB)
    blocks = cut(layout, 0)
    assert len(blocks) <= MAX_BLOCKS
    assert max(length for _, length in blocks) <= layout.most


@pytest.mark.parametrize("seed", range(20))
def test_every_block_that_is_there_is_met_again(seed: int) -> None:
    """A process that wants other sizes fills the gaps and begins each block where one is."""
    chance = random.Random(seed)
    size = chance.randrange(9 * MIB, 300 * MIB)
    wanted = [2 ** chance.randrange(15, 24) for _ in range(100)]
    left: set[tuple[int, int]] = set()
    for _ in range(4):  # processes that are killed
        layout = Layout(size, 8 * MIB)
        layout.resume(ids(layout, list(left)))
        blocks = cut(layout, *chance.sample(wanted, 50))
        assert left <= set(blocks)
        left |= set(chance.sample(blocks, len(blocks) // 3))


def test_what_others_have_left_does_no_harm() -> None:
    """Blocks of other tools and of other settings: wrong lengths, places behind the end, ids of any length."""
    layout = Layout(10 * MIB + 5, 8 * MIB)
    layout.resume(
        {
            block_id(0, 1): 17,
            block_id(1, 2): 9 * MIB,
            block_id(40, 3): 6,
            block_id(41, 4): SMALLEST,
            block_id(3, 5, 6): SMALLEST,
            "": MIB,
        }
    )
    assert cut(layout, 8 * MIB) == [(0, 8 * MIB), (8 * MIB, 2 * MIB + 5)]


def test_small_blocks_that_are_there_are_met_only_while_the_rest_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file that was begun on a slow line could never be committed."""
    monkeypatch.setattr("uploader.upload.block.MAX_BLOCKS", 4)
    layout = Layout(4 * MIB, MIB)
    layout.resume({block_id(place, 1): SMALLEST for place in range(16)})
    assert cut(layout, 0) == [(number * MIB, MIB) for number in range(4)]

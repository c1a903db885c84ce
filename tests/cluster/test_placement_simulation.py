"""A million names over 1 to 64 shards: evenly spread, and no more names move than must."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from uploader.cluster.placement import rank

NAMES = 1_000_000
SHARDS = 64
PART = 50_000
Owners = list[Counter[int]]  # by number of shards: how many names each ordinal owns


def name(number: int) -> str:
    """Return a name as people give it: names differ in a few digits."""
    return f"run-{number}" if number % 2 else f"2026-02-{number % 28 + 1:02}-line-{number}"


def wins(first: int) -> Counter[tuple[int, int]]:
    """Count by (ordinal, most): the ordinal is first of the rank with ordinal + 1 up to most shards.

    The rank over fewer shards is the rank over all of them without the others (tested below), so one rank a name
    tells the owner for every number of shards.
    """
    found: Counter[tuple[int, int]] = Counter()
    for number in range(first, first + PART):
        most = SHARDS
        for ordinal in rank(name(number), SHARDS):
            if ordinal < most:
                found[ordinal, most] += 1
                most = ordinal
    return found


@pytest.fixture(scope="module")
def owners() -> Owners:
    table: Owners = [Counter() for _ in range(SHARDS + 1)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for found in pool.map(wins, range(0, NAMES, PART)):
            for (ordinal, most), count in found.items():
                for shards in range(ordinal + 1, most + 1):
                    table[shards][ordinal] += count
    return table


def test_every_shard_gets_its_share_within_3_percent(owners: Owners) -> None:
    """No Jetson is idle while another carries twice as much."""
    for shards in range(1, SHARDS + 1):
        ideal = NAMES / shards
        assert owners[shards].total() == NAMES
        assert set(owners[shards]) == set(range(shards))
        worst = max(abs(count - ideal) / ideal for count in owners[shards].values())
        assert worst <= 0.03, f"{shards} shards: {worst:.1%} off"


def test_a_shard_more_or_less_moves_its_own_share_within_5_percent(owners: Owners) -> None:
    """One shard more moves exactly the names that it wins; one less moves them back."""
    for shards in range(1, SHARDS):
        moved = owners[shards + 1][shards]
        taken = [owners[shards][ordinal] - owners[shards + 1][ordinal] for ordinal in range(shards)]
        assert min(taken) >= 0
        assert sum(taken) == moved
        ideal = NAMES / (shards + 1)
        assert abs(moved - ideal) / ideal <= 0.05, f"{shards} to {shards + 1} shards: {moved} moved, ideal {ideal:.0f}"


@pytest.mark.parametrize("number", range(0, NAMES, NAMES // 40))
def test_fewer_shards_keep_the_order_of_those_that_stay(number: int) -> None:
    """The counting above relies on this for every number of shards."""
    order = rank(name(number), SHARDS)
    assert sorted(order) == list(range(SHARDS))
    for shards in range(1, SHARDS):
        assert rank(name(number), shards) == [ordinal for ordinal in order if ordinal < shards]


def test_the_next_in_rank_are_spread_too() -> None:
    """Sessions that a full shard passes on do not all go to one other shard."""
    second = Counter(rank(name(number), 8)[1] for number in range(20_000) if rank(name(number), 8)[0] == 3)
    assert set(second) == set(range(8)) - {3}
    ideal = second.total() / 7
    assert max(abs(count - ideal) / ideal for count in second.values()) <= 0.2

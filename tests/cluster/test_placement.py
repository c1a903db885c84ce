"""Which shard a name belongs to: the same in every process, evenly spread, and unchanged by a new shard."""

import subprocess
import sys

from uploader.cluster.placement import rank

KNOWN = ([1, 4, 3, 2, 0], [0, 2, 1])
NAMES = [f"run-{number}" for number in range(2000)]


def test_a_rank_holds_every_shard_once() -> None:
    """The router finds every shard with room by going down the rank."""
    assert sorted(rank("run-1", 7)) == list(range(7))
    assert rank("run-1", 1) == [0]
    assert rank("run-1", 0) == []


def test_the_rank_never_changes_between_processes_or_releases() -> None:
    """The values are fixed: a change of the hash would move every session that runs."""
    program = "from uploader.cluster.placement import rank; print(rank('run-42', 5), rank('a', 3))"
    said = {subprocess.check_output([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}) for seed in "12"}
    assert said == {f"{rank('run-42', 5)} {rank('a', 3)}\n".encode()}
    assert (rank("run-42", 5), rank("a", 3)) == KNOWN


def test_a_new_shard_takes_its_share_and_moves_nothing_else() -> None:
    """Among the old shards every name keeps its order."""
    for name in NAMES:
        before, after = rank(name, 4), rank(name, 5)
        assert [shard for shard in after if shard != 4] == before


def test_names_are_spread_evenly() -> None:
    """Each of four shards is first for about a quarter of the names."""
    firsts = [rank(name, 4)[0] for name in NAMES]
    assert all(400 < firsts.count(shard) < 600 for shard in range(4))

"""What the rows make of what they saw."""

import pytest

from tests.bench import report, slow
from tests.bench.bench import ROWS, _named
from tests.bench.goals import known


def test_the_longest_wait_counts_from_the_first_byte_to_the_last_look() -> None:
    """Nothing seen at the beginning or at the end is a wait too."""
    steps = [(0.0, 0, 0), (1.0, 10, 0), (4.0, 20, 5), (5.0, 30, 10), (7.0, 30, 10)]
    assert slow._step(steps) == 4.0
    assert slow._step([*steps, (12.0, 30, 10)]) == 7.0
    assert slow._step(steps[:1]) == 0.0


def test_the_line_is_busy_until_the_last_byte() -> None:
    """What the client does after the line has taken everything is no time of the line."""
    seen = [(0.0, 0, 0), (0.0, 100, 0), (1.0, 200, 0), (2.0, 300, 0), (9.0, 300, 0)]
    assert slow._busy(seen) == (2.0, 200)


def test_a_goal_is_printed_beside_what_was_reached() -> None:
    """Whoever reads the page sees which goals were missed."""
    lines = report.goals([known("wait, s", 1.5, most=2.0), known("share", 0.9, least=0.95)], {})
    assert lines[2:] == ["| wait, s | <= 2.0 | 1.50 | met |", "| share | >= 0.95 | 0.90 | **missed** |"]


def test_a_row_without_goals_has_no_table_of_them() -> None:
    assert report.goals([], {}) == []


def test_rows_are_named_once_and_a_wrong_name_is_refused() -> None:
    """`make bench ROWS=...` takes the names that it lists."""
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert _named(names, "slow,nfs") == {"slow", "nfs"}
    with pytest.raises(Exception, match="no row fast; there are large-md5, "):
        _named(names, "fast")

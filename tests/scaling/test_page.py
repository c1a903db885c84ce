"""docs/scaling.md gives the figures of the model."""

import re
from pathlib import Path

import pytest

from tests.scaling import model

PAGE = (Path(__file__).parents[2] / "docs/scaling.md").read_text(encoding="utf-8")


def measured() -> model.Shard | None:
    """Return R and F as the page has them."""
    found = re.search(r"R = ([\d,.]+) MB/s.*?F = ([\d,.]+) files/s", PAGE, re.DOTALL)
    return model.Shard(*(float(number.replace(",", "")) for number in found.groups())) if found else None


@pytest.mark.parametrize("rows", [model.ALWAYS, model.BUSY], ids=["always", "busy"])
def test_the_page_has_the_figures_of_the_model(rows: tuple[model.Row, ...]) -> None:
    """Whoever changes the code's costs has to change the page."""
    shard = model.Shard(0, 0) if rows is model.ALWAYS else measured()
    wanted = list(model.table(rows, shard))
    assert [line for line in PAGE.splitlines() if line in wanted] == wanted, "\n".join(["it should say:", *wanted])


def test_nothing_is_left_open_once_r_and_f_are_known() -> None:
    """No placeholder stays when the figures have been measured."""
    assert measured() is None or "{{" not in PAGE

"""The state machine of machine.py; a failure is printed as a few plain steps."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis.internal.conjecture import providers

from tests.fuzz.machine import Blind, Coarse, Machine
from tests.fuzz.steps import failure, run, shortest, step


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Switch logging off: the lines of thousands of machines explain no failure."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("machine", "examples"), [(Machine, 160), (Blind, 120), (Coarse, 60)])
def test_whatever_happens_in_whatever_order_nothing_is_lost(machine: type[Machine], examples: int) -> None:
    """Sequences of up to 40 steps of producers, owners, kills and faults."""
    if failed := run(machine, examples=examples, length=40):
        pytest.fail(failed, pytrace=False)


class Forgetful(Machine):
    """Loses a file when a scan has gone before, whatever steps stand between."""

    @step()
    def lose(self) -> None:
        if any(each.name == "scan" for each in self.steps):
            self.model["lost.bin"] = b"content"


def test_a_failure_is_printed_as_the_few_steps_that_lead_to_it() -> None:
    """Of 40 steps the two that matter are left."""
    failed = run(Forgetful, examples=80, length=40, seconds=200)
    assert "lost.bin is lost" in failed
    assert "after these steps:" in failed
    scan, lose = failed.splitlines()[-2:]
    assert scan.startswith("    machine.scan(owner=")
    assert lose == "    machine.lose()"


def test_steps_are_left_out_until_the_time_is_over() -> None:
    """The search for the shortest failure is bounded."""
    tried: list[list[int]] = []

    def fails(steps: list[int]) -> bool:
        tried.append(steps)
        return {3, 7} <= set(steps)

    assert shortest(list(range(40)), fails, seconds=60) == [3, 7]
    tried.clear()
    assert shortest(list(range(40)), fails, seconds=-1) == list(range(40))
    assert tried == []


def test_no_steps_are_no_failure() -> None:
    assert failure(Machine, []) is None


def test_the_cases_do_not_depend_on_what_is_loaded() -> None:
    """Hypothesis has no public switch for its constants from modules: this fails when the private one changes."""
    assert not providers.HypothesisProvider(None)._local_constants

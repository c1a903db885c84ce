"""The steps of a state machine: recorded as they are taken, made fewer, and printed as plain calls."""

import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, TypeVar

from hypothesis import Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

SHORTEN = 25.0  # seconds for finding fewer steps that fail too
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a rule."""

    name: str
    given: dict[str, Any]

    def __str__(self) -> str:
        return f"    machine.{self.name}({', '.join(f'{key}={value!r}' for key, value in self.given.items())})"


class Recorded(RuleBasedStateMachine):
    """A machine that records its steps; `failed` holds the steps of the last machine that failed."""

    failed: ClassVar[list[Step]] = []

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.inside = False  # a step, whose own calls of others are no steps

    @abstractmethod
    def check(self) -> None:
        """Assert what must be true after each step."""

    @abstractmethod
    def rest(self) -> None:
        """Finish all work, and assert what must be true then."""

    @invariant()
    def holds(self) -> None:
        with self.noted():
            self.check()

    def teardown(self) -> None:
        with self.noted():
            self.rest()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Run one step; note all steps when it fails."""
        self.inside = True
        try:
            yield
        except Exception:
            Recorded.failed = list(self.steps)
            raise
        finally:
            self.inside = False


def step(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a method of a machine a rule whose calls are recorded."""

    def made(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def recorded(*args: P.args, **given: P.kwargs) -> None:
            machine = args[0]
            assert isinstance(machine, Recorded)
            if machine.inside:
                function(*args, **given)
                return
            machine.steps.append(Step(function.__name__, given))
            with machine.noted():
                function(*args, **given)

        ruled: Callable[P, None] = rule(**strategies)(recorded)  # type: ignore[call-overload]
        return ruled

    return made


def run(machine: type[Recorded], examples: int, length: int, seconds: float = SHORTEN) -> str:
    """Run a machine; return how it failed, with as few steps as are found in a bounded time, or "".

    Hypothesis' own shrinking has no such bound: it is off (tests/conftest.py).
    """
    try:
        made = settings(max_examples=examples, stateful_step_count=length, verbosity=Verbosity.quiet)
        run_state_machine_as_test(machine, settings=made)
    except Exception as error:  # noqa: BLE001 whatever it is, it is what was looked for
        steps = shortest(Recorded.failed, lambda fewer: failure(machine, fewer) is not None, seconds)
        again = failure(machine, steps)
        when = "after these steps:" if again else "after these steps, which pass when they are repeated:"
        return "\n".join([f"{again or error!r}", when, *map(str, steps)])
    return ""


def failure(machine: type[Recorded], steps: list[Step]) -> Exception | None:
    """Take the steps on a new machine; return the failure of a step or of the end, or None."""
    one, failed = machine(), None
    try:
        for each in steps:
            getattr(one, each.name)(**each.given)
            one.check()
    except Exception as error:  # noqa: BLE001 as above
        failed = error
    try:
        one.teardown()
    except Exception as error:  # noqa: BLE001 as above
        failed = failed or error
    return failed


def shortest(steps: list[T], fails: Callable[[list[T]], bool], seconds: float) -> list[T]:
    """Leave out steps while the rest still fails and time is left: first halves, at last single steps."""
    until, size = time.monotonic() + seconds, len(steps)
    while size:
        before, at = len(steps), 0
        while at < len(steps):
            if time.monotonic() > until:
                return steps
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps = fewer
            else:
                at += size
        if size > 1 or len(steps) == before:
            size //= 2
    return steps

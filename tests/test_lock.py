"""The lock files name every package as it is asked for, so that pip never looks beyond them."""

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.programs import TOP

LOCKS = ("requirements.lock", "requirements-dev.lock")


def locked(name: str) -> dict[str, set[str]]:
    """Return the packages of a lock file, each with its extras."""
    lines = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?==", (TOP / name).read_text(), re.MULTILINE)
    return {package: set(filter(None, extras.split(","))) for package, extras in lines}


def wishes(package: str) -> list[Requirement]:
    """Return what an installed package asks for with an extra; nothing for one of another platform or Python."""
    try:
        lines = importlib.metadata.distribution(package).requires or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = map(Requirement, lines)
    return [one for one in wanted if one.extras and (one.marker is None or one.marker.evaluate({"extra": ""}))]


@pytest.mark.parametrize("name", LOCKS)
def test_a_package_that_is_asked_for_with_an_extra_is_locked_with_it(name: str) -> None:
    """Else pip takes `coverage[toml]` for a requirement without a pin as soon as there is a newer coverage, and refuses it."""
    packages = locked(name)
    asked = [wanted for package in packages for wanted in wishes(package)]
    assert asked
    assert [str(one) for one in asked if not one.extras <= packages.get(canonicalize_name(one.name), set())] == []

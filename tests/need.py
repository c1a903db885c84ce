"""Tests ask here for programs of the machine. A missing program is a visible skip, and in CI a failure."""

import os
import shutil

import pytest


def need(*programs: str) -> None:
    """Skip the test, or fail it in CI, when one of these programs is not on the PATH or at that path."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        absent(f"not installed: {', '.join(missing)} (tests/system-packages installs them)")


def absent(reason: str) -> None:
    """Skip with this reason, or fail with it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

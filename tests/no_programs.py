"""A pytest plugin (`-p tests.no_programs`): a test that starts a program is skipped there and left to `make test`.

This is the whole rule of `make check`. No test is listed or marked, so a test can move or change freely.
"""

import sys
from collections.abc import Iterator
from multiprocessing import util
from typing import Any, NoReturn
from unittest import mock

import pytest

LEFT = "starts a program: left to make test"
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
_running: list[pytest.Item] = []  # empty between the tests, where pytest-xdist starts its workers


def _leave() -> NoReturn:
    pytest.skip(LEFT)


def _watch(event: str, _: tuple[Any, ...]) -> None:
    if _running and event in STARTS:
        _leave()


def pytest_configure(config: pytest.Config) -> None:
    # A test that ends in the middle of a constructor leaves what that had made to the garbage collector.
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
    sys.addaudithook(_watch)
    spawn = util.spawnv_passfds  # multiprocessing's own function, which raises no audit event

    def spawnv_passfds(*args: Any) -> int:
        if _running:
            _leave()
        return int(spawn(*args))

    mock.patch.object(util, "spawnv_passfds", spawnv_passfds).start()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.clear()

"""The arithmetic that decides when a file is ready."""

import pytest

from uploader.discovery.readiness import rest, settled, signed
from uploader.share.fingerprint import Fingerprint


@pytest.mark.parametrize(
    ("size", "mtime", "ctime", "trusted", "is_sign"),
    [
        (1, 100, 101, 0, True),
        (1, 100, 100, 0, False),  # a write moves both
        (0, 100, 101, 0, False),  # content may still come
        (1, 100, 105, 105, False),  # perhaps an earlier run gave its claim back
        (1, 100, 106, 105, True),
    ],
)
def test_a_change_after_the_last_write_is_a_sign(
    size: int, mtime: int, ctime: int, trusted: int, is_sign: bool
) -> None:
    """A ctime after the mtime shows a rename by the producer; an empty file, or our own rename, proves nothing."""
    assert signed(Fingerprint(inode=1, size=size, mtime_ns=mtime, ctime_ns=ctime), trusted) is is_sign


@pytest.mark.parametrize(
    ("age", "unchanged", "settle", "has"),
    [
        (5.0, 0.0, 5.0, True),
        (4.9, 4.9, 5.0, False),
        (-3.0, 5.0, 5.0, True),
        (0.0, 0.0, 0.0, True),
        (-0.1, 9.0, 0.0, False),
    ],
)
def test_either_clock_tells_that_a_file_was_left_alone(age: float, unchanged: float, settle: float, has: bool) -> None:
    """With `settle` 0 only the server's clock counts: a file that it dates in the future is still coming."""
    assert settled(age, unchanged, settle) is has


@pytest.mark.parametrize(("age", "unchanged", "left"), [(1.0, 3.0, 2.0), (4.0, 0.0, 1.0), (-100.0, 0.0, 5.0)])
def test_the_clock_that_waited_longer_says_when_to_look_again(age: float, unchanged: float, left: float) -> None:
    """No file is looked at before it can be ready, and a wrong mtime delays it by `settle` at most."""
    assert rest(age, unchanged, 5.0) == left

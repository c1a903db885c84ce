"""What a file system does to the program, put in its way for a while."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from uploader.share import fingerprint
from uploader.share.fingerprint import Fingerprint

TICK = 2 * 10**9  # ns


@contextmanager
def failing_unlinks(first: int) -> Iterator[None]:
    """Let every unlink inside a folder of the share fail from this one on, counted from 0."""
    unlink, made = os.unlink, [0]

    def failing(name: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            made[0] += 1
            if made[0] > first:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        unlink(name, dir_fd=dir_fd)

    with patch.object(os, "unlink", failing):
        yield


@contextmanager
def coarse_times() -> Iterator[None]:
    """Let every look tell times that are whole ticks of two seconds."""
    look = fingerprint._look

    def rounded(status: os.stat_result) -> Fingerprint:
        now = look(status)
        return replace(now, mtime_ns=now.mtime_ns // TICK * TICK, ctime_ns=now.ctime_ns // TICK * TICK)

    with patch.object(fingerprint, "_look", rounded):
        yield

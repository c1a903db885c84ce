"""What status says of a session after a restart, as far as the files on the share tell."""

import errno

import pytest

from tests.invariants.bed import Bed
from uploader.discovery import discover
from uploader.session import Session, State
from uploader.sessions import status
from uploader.share.fingerprint import Fingerprint
from uploader.web.openapi.models import Bytes, ShardStatus

SHARD = ShardStatus(shard=0, reachable=True, sessions=[])
SESSION = Session("run", State.ACTIVE, 0, "2026-03-01T12:00:00.000Z")


def test_files_that_were_done_before_are_counted_with_their_bytes(bed: Bed) -> None:
    """The user of status sees the `.completed` files that are still on the share, not a count of zero."""
    bed.write("a/x.completed", b"content")
    bed.write("y.completed", b"more")
    bed.write("z", b"waiting")
    bed.discovery.count_completed()
    (one,) = status.answer(SHARD, [(SESSION, bed.files)]).sessions
    assert one.files.completed == 2
    assert one.bytes == Bytes(uploaded=11, total=11)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ESTALE])
def test_one_that_cannot_be_looked_at_ends_nothing(bed: Bed, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper may delete a file under the count, and ESTALE of one file is not the end of the share."""

    def failing(folder: int, name: str) -> Fingerprint:
        raise OSError(number, f"{name} in {folder}")

    bed.write("x.completed", b"content")
    monkeypatch.setattr(discover, "stamp", failing)
    bed.discovery.count_completed()
    counted = bed.files.snapshot()
    assert counted.completed == counted.bytes_uploaded == 0

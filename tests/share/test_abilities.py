"""What the share cannot do is said at the start, in one sentence, and by exit code 1."""

import errno
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests.support.programs import TOP, shard
from uploader.share import abilities
from uploader.share.mount import OWN, Share

CONNECTION = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:9/a;"
# A share that cannot do one thing, in a real process: this machine's kernel mounts no such file system.
LACKS = {
    "makes no hard links (Operation not permitted)": "os.link = fail",
    "makes no hard links": "os.link = lambda one, other: open(other, 'w').close()",
    "does not rename files (Operation not permitted)": "os.rename = fail",
    "takes a for A in names": "real = os.path.lexists; os.path.lexists = lambda path: real(path) or 'TMP-' in path",
    "cannot sync a folder (Operation not permitted)": (
        "import stat; real = os.fsync; os.fsync = lambda fd: (fail if stat.S_ISDIR(os.fstat(fd).st_mode) else real)(fd)"
    ),
}
PROGRAM = """
import os, sys
def fail(*_, **__): raise PermissionError(1, "Operation not permitted")
{lack}
from uploader.__main__ import main
main()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


@pytest.mark.parametrize("lack", LACKS)
def test_what_is_missing_ends_the_start_with_one_sentence(root: Path, tmp_path: Path, lack: str) -> None:
    """A shard that was ready and refused every start, or lost a session by a mere status, helps nobody."""
    server = shard(tmp_path, root, CONNECTION)
    server.argv = [sys.executable, "-c", PROGRAM.format(lack=LACKS[lack])]
    server.start()
    assert server.wait() == 1
    assert f"the share {lack}: it has to make hard links, rename" in server.log()
    assert sorted(os.listdir(root / OWN)) == ["clock-0", "given-back", "sessions"]


def test_a_share_that_can_do_all_is_left_as_it_was(root: Path) -> None:
    """No trial file stays."""
    Share(root, 0, 5).close()
    before = sorted(os.listdir(root / OWN))
    abilities.check(str(root), 0)
    assert sorted(os.listdir(root / OWN)) == before


@pytest.mark.parametrize("call", ["link", "rename", "fsync", "unlink"])
def test_a_kill_during_the_trial_leaves_nothing(root: Path, call: str) -> None:
    """The next process of this ordinal removes the files, and no other shard's."""
    Share(root, 0, 5).close()
    before = sorted(os.listdir(root / OWN))
    dying = (
        f"import os, sys, signal; from uploader.share import abilities; "
        f"os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL); abilities.check(sys.argv[1], 0)"
    )
    assert subprocess.run([sys.executable, "-c", dying, str(root)], cwd=TOP, check=False).returncode == -signal.SIGKILL
    left = sorted(os.listdir(root / OWN))
    assert left != before
    Share(root, 1, 5).close()
    assert set(left) < set(os.listdir(root / OWN))
    Share(root, 0, 5).close()
    assert sorted(os.listdir(root / OWN)) == sorted([*before, "clock-1"])


def test_a_share_that_is_lost_meanwhile_is_no_wrong_share(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that times out can be mounted again: that is exit code 75, not 1."""
    Share(root, 0, 5).close()

    def lost(*_: object) -> None:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(os, "link", lost)
    with pytest.raises(TimeoutError):
        abilities.check(str(root), 0)


@pytest.mark.parametrize(("call", "before_it"), [("open", 1), ("link", 0), ("link", 1), ("unlink", 1), ("rename", 0)])
def test_two_processes_of_one_ordinal_may_start_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, before_it: int
) -> None:
    """The second removes the first one's trial files, as those of a killed process: neither calls the share unfit."""
    Share(root, 0, 5).close()
    before, real, calls = sorted(os.listdir(root / OWN)), getattr(os, call), count()

    def overtaken(path: object, *more: object, **named: object) -> object:
        if ("tmp-0-" in str(path) or "trial-0-" in str(path)) and next(calls) == before_it:
            with monkeypatch.context() as inner:
                inner.setattr(os, call, real)
                Share(root, 0, 5).close()
        return real(path, *more, **named)

    monkeypatch.setattr(os, call, overtaken)
    share = Share(root, 0, 5)
    abilities.check(str(root), 0)
    share.close()
    assert next(calls) > before_it, "the second process has started meanwhile"
    assert sorted(os.listdir(root / OWN)) == before

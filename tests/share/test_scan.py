"""How a scan classifies each name, and what it does when the tree changes or fails during the scan."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from uploader.share.scan import Found, Kind, Rule, scan
from uploader.telemetry.text import shown

ALL = Rule((), "run/")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def found(top: int, rule: Rule = ALL) -> dict[str, Kind]:
    return {shown(one.name): one.kind for one in scan(top, rule)}


def only(top: int, rule: Rule = ALL) -> Found:
    (one,) = scan(top, rule)
    return one


def test_names_are_told_apart(tmp_path: Path, top: int) -> None:
    """Plain files, claims, completed files and unfinished or hidden ones; the paths bear no suffix of ours."""
    names = ["x", "y.processing", "z.completed", "a.processing.processing", "x.tmp", "x.Part", ".hidden", "b~", ".nfs1"]
    names += ["X.PROCESSING", "c.crdownload", ".processing", "sub/.git/config", "sub/d.completed"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert found(top) == {
        "x": Kind.PLAIN,
        "y.processing": Kind.PROCESSING,
        "a.processing.processing": Kind.ODD,
        "X.PROCESSING": Kind.ODD,
        "z.completed": Kind.COMPLETED,
        "d.completed": Kind.COMPLETED,
    }
    paths = {one.path for one in scan(top, ALL)}
    assert paths == {"x", "y", "z", "a.processing.processing", "X.PROCESSING", "sub/d"}


@pytest.mark.parametrize(
    ("extensions", "eligible"),
    [
        ((), ["a.bin", "b.BIN", "c.h5", "d"]),
        ((".bin",), ["a.bin", "b.BIN"]),
        ((".h5", ".bin"), ["a.bin", "b.BIN", "c.h5"]),
    ],
)
def test_extensions_choose_without_regard_to_case(
    tmp_path: Path, top: int, extensions: tuple[str, ...], eligible: list[str]
) -> None:
    """A session with extensions sends these files only; without any, all."""
    for name in ("a.bin", "b.BIN", "c.h5", "d", "e.bin.tmp"):
        (tmp_path / name).touch()
    assert sorted(found(top, Rule(extensions, ""))) == eligible


def test_what_is_claimed_counts_whatever_the_extensions_are_now(tmp_path: Path, top: int) -> None:
    """A start with other extensions must not leave claims unfinished."""
    (tmp_path / "x.h5.processing").touch()
    assert only(top, Rule((".bin",), "")).kind is Kind.PROCESSING


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"\xff", "UTF-8"),
        (b"a\x01", "control character"),
        (b"a\x7f", "control character"),
        ("a\ufffe".encode(), "control character"),
        (b"a\\b", "backslash"),
        (b"dot.", "dot"),
        (b"sub./x", "dot"),
        (b"x" * 245, "leaves no room"),
        (("\U0001f600" * 62).encode(), "leaves no room"),
        (b"/".join([b"f" * 240] * 5), "room for"),
    ],
)
def test_a_name_that_cannot_be_sent_is_odd_and_says_why(tmp_path: Path, top: int, name: bytes, reason: str) -> None:
    """The producer can see in status what to rename."""
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass
    one = only(top)
    assert one.kind is Kind.ODD
    assert reason in one.reason


@pytest.mark.parametrize("first", [".processing", ".completed", ".Processing", ".COMPLETED"])
@pytest.mark.parametrize("second", [".processing", ".completed"])
def test_a_reserved_suffix_upon_another_is_nobodys_claim(tmp_path: Path, top: int, first: str, second: str) -> None:
    """We claim no file that bears such a suffix, so a stranger made this name; it says nothing of x."""
    name = "x.bin" + first + second
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).touch()
    one = only(top)
    assert (one.kind, one.path, one.name) == (Kind.ODD, f"sub/{name}", name)
    assert "twice" in one.reason


@pytest.mark.parametrize("name", ["x" * 244, "\U0001f600" * 61, "a?b#c%d e&f", "a:b", "é", "e\u0301"])
def test_a_strange_name_that_can_be_sent_is_not_odd(tmp_path: Path, top: int, name: str) -> None:
    """Whatever a blob's name can hold is sent, and its claim still fits into 255 bytes."""
    (tmp_path / name).touch()
    assert only(top).kind is Kind.PLAIN
    (tmp_path / name).rename(tmp_path / (name + ".processing"))


def test_what_is_no_regular_file_is_odd(tmp_path: Path, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes and sockets are shown with the reason and never opened (I8)."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "dangling.processing").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        reasons = {one.name: (one.kind, one.reason) for one in scan(top, ALL)}
    assert reasons == {
        "link": (Kind.ODD, "a symbolic link is not followed"),
        "dangling.processing": (Kind.ODD, "a symbolic link is not followed"),
        "pipe": (Kind.ODD, "not a regular file"),
        "socket": (Kind.ODD, "not a regular file"),
    }


def test_each_folder_is_watched_before_it_is_listed(tmp_path: Path, top: int) -> None:
    """A file that arrives between the two is seen by the watch, by the listing or by both."""
    (tmp_path / "sub").mkdir()
    entered = []

    def enter(path: str, folder: int) -> None:
        entered.append(path)
        with open("late", "wb", opener=lambda name, flags: os.open(name, flags, dir_fd=folder)):
            pass

    assert {one.path for one in scan(top, ALL, enter)} == {"late", "sub/late"}
    assert entered == ["", "sub"]


def test_a_folder_that_goes_meanwhile_is_passed_over(tmp_path: Path, top: int) -> None:
    """Producers move folders while we scan; the others are listed all the same."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()

    def enter(path: str, _: int) -> None:
        if path:
            for other in {"a", "b"} - {path}:
                if (tmp_path / other).exists():
                    (tmp_path / other).rename(tmp_path.parent / f"gone-{other}-{tmp_path.name}")

    assert "c/x" in {one.path for one in scan(top, ALL, enter)}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(116, "Stale"), OSError(5, "I/O")])
def test_a_folder_that_fails_hides_no_other_and_is_said(
    tmp_path: Path, top: int, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad folder is reported with its error, so that no drain ends without it (I7)."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    bad = (tmp_path / "b").stat().st_ino
    listing = os.scandir

    def failing(fd: int) -> object:
        if os.fstat(fd).st_ino == bad:
            raise error
        return listing(fd)

    monkeypatch.setattr(os, "scandir", failing)
    seen = {one.path: one for one in scan(top, ALL)}
    assert {path: one.kind for path, one in seen.items()} == {"a/x": Kind.PLAIN, "b": Kind.SHUT, "c/x": Kind.PLAIN}
    assert seen["b"].error is error


@pytest.mark.parametrize("number", [2, 5, 13, 116])
def test_a_top_that_fails_is_no_empty_one(top: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone is not empty: the error reaches the caller (I6)."""

    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        list(scan(top, ALL))


def test_nothing_stays_open(tmp_path: Path, top: int) -> None:
    """A scan closes its folders, even one that is left in the middle."""
    for number in range(50):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x").touch()
    folder = "/proc/self/fd"

    def below() -> list[str]:
        found = (os.path.join(folder, fd) for fd in os.listdir(folder))
        return [path for path in found if os.path.islink(path) and os.readlink(path).startswith(str(tmp_path))]

    before = below()
    walk = scan(top, ALL)
    next(walk)
    walk.close()  # type: ignore[attr-defined]
    list(scan(top, ALL))
    assert len(before) == 1
    assert below() == before

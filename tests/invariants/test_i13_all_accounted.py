"""I13: every file below a session's folder is sent, or shown with its reason, or left alone by a rule in the docs."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.invariants.bed import STARTED, Bed
from tests.share.test_entry import listener
from tests.support.programs import TOP
from uploader.errors import BadRequest, NameRefused, StoreRefused
from uploader.naming import MAX_PARTS, TEMPORARY
from uploader.session import Session, State
from uploader.sessions.ending import result
from uploader.sessions.runs import Run
from uploader.sessions.service import Service
from uploader.share.paths import opened
from uploader.share.scan import scan
from uploader.sweep.seal import Sealed
from uploader.telemetry.text import shown

SENT = [
    "x",
    "a/b.bin",
    "x" * 244,
    "a?b#c%d",
    "é",
    "e\u0301",
    "RUN-8.BIN",
    "tmp",
    "part/x",
    "x.completedly",
    "sub.completed/y",
]
SHOWN = [
    "RUN-7.COMPLETED", "x.Processing", "sub/y.CompleteD", "a.processing.processing", "b.completed.completed",
    "dot.", "sub./x", "back\\slash", "con\x01trol", os.fsdecode(b"\xff"), "y" * 245, "/".join(["f" * 240] * 5),
    "/".join(["d"] * MAX_PARTS), "z.COMPLETED/", "foreign.completed",
]  # fmt: skip
ALONE = [
    ".hidden", ".nfs0001", "sub/.git/config", "x.tmp", "x.PART", "x.partial", "x.filepart", "x.swp", "x.crdownload", "x~",
    "batch.tmp/a", "batch.Part/a/b", "old~/a", "x.filling", "wip.filling/a", ".completed", ".processing",
]  # fmt: skip
RULE = {r"(^|/)\.": "leading dot", r"\.filling(/|$)": "NFS_WATCH_TEMPORARY"} | {
    rf"{re.escape(suffix)}(/|$)": f"`{suffix}`" for suffix in TEMPORARY
}
OBJECTS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("x"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "folder link": lambda path: path.symlink_to("/"),
    "socket": listener,
    "pipe.completed": os.mkfifo,
    "link.processing": lambda path: path.symlink_to("x"),
    "Link.COMPLETED": lambda path: path.symlink_to("x"),
}


def put(bed: Bed, path: str) -> Path:
    target = bed.folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.endswith("/"):
        target.mkdir()
        return bed.write(path.removesuffix("/").removesuffix(".COMPLETED"), b"x")
    target.write_bytes(b"x")
    return target


def reasons(bed: Bed) -> dict[str, str]:
    return {one.path: one.error or "" for one in bed.files.snapshot(1000).current}


def drain(bed: Bed) -> None:
    """Drain, and say that it has ended."""
    bed.discovery.drain()
    bed.settle()
    bed.scan()
    assert bed.discovery.finished, reasons(bed)


@pytest.mark.parametrize("path", SENT)
def test_what_can_be_sent_is_sent(make: Callable[..., Bed], path: str) -> None:
    """And then it is gone from the share."""
    bed = make(temporary=".filling")
    put(bed, path)
    drain(bed)
    assert (bed.names(), bed.content(path), reasons(bed)) == ([], b"x", {})


@pytest.mark.parametrize("path", [one for one in SHOWN if not one.endswith("/")])
def test_what_cannot_be_sent_is_shown(make: Callable[..., Bed], path: str) -> None:
    """It keeps its name, the drain ends, and its reason stands in the status."""
    bed = make(temporary=".filling")
    put(bed, path)
    drain(bed)
    assert bed.names() == [path]
    assert shown(path) in reasons(bed)
    assert reasons(bed)[shown(path)]
    assert bed.files.snapshot().failed == 1


@pytest.mark.parametrize("path", ALONE)
def test_what_is_left_alone_stands_in_the_docs(make: Callable[..., Bed], path: str) -> None:
    """Unfinished and hidden files wait for their name; the table in docs/operations.md has the rule."""
    bed = make(temporary=".filling")
    put(bed, path)
    drain(bed)
    assert (bed.names(), reasons(bed), bed.store.writes) == ([path], {}, [])
    table = (TOP / "docs/operations.md").read_text().split("### Names")[1].split("\n### ")[0]
    assert RULE[next(end for end in RULE if re.search(end, path, re.IGNORECASE))] in table


@pytest.mark.parametrize(
    "extension", [".tmp", ".completed", ".bin.PART", ".old~", ".filling", ".bin.", ".a\\b", ".a\u0085b"]
)
def test_a_start_for_files_that_are_never_sent_is_refused(bed: Bed, service: Service, extension: str) -> None:
    """201 would promise what cannot happen; the same holds for the settings."""
    service.settings = bed.settings.model_copy(update={"temporary": (".filling",)})
    with pytest.raises(BadRequest, match="no file of this name is ever sent"):
        service.start("other", [extension], None)
    with pytest.raises(ValidationError, match="no file of this name is ever sent"):
        Bed(bed.root, extensions=extension, temporary=".filling")


@pytest.mark.parametrize("prefix", ["a./", "a//b", "a/..", "/".join("a" * 254) + "\u0085"])
def test_a_prefix_obeys_the_rule_for_paths(bed: Bed, prefix: str) -> None:
    """It is a part of every blob's name."""
    with pytest.raises(ValidationError, match="blob_prefix"):
        Bed(bed.root, blob_prefix=prefix)


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_no_file_is_shown(bed: Bed, name: str) -> None:
    """Never opened, never followed."""
    OBJECTS[name](bed.folder / name)
    drain(bed)
    plain = name.removesuffix(".completed").removesuffix(".processing")
    assert list(reasons(bed)) == [plain]
    assert bed.store.writes == []
    assert os.path.lexists(bed.folder / name)


@pytest.mark.parametrize("suffix", [".completed", ".processing"])
def test_a_folder_in_the_way_of_a_file_is_named(bed: Bed, suffix: str) -> None:
    """The drain ends, and the file counts as left behind, with what a person has to move away."""
    bed.write("x", b"x")
    (bed.folder / f"x{suffix}").mkdir()
    drain(bed)
    assert bed.names() == ["x"]
    assert reasons(bed) == {"x": f"x{suffix} is in its way: not a regular file but a folder"}
    (bed.folder / f"x{suffix}").rmdir()
    bed.settle()
    assert bed.content("x") == b"x"


def test_a_folder_that_is_filled_under_a_temporary_name_is_sent_whole(bed: Bed) -> None:
    """Entered early, a batch was split over two prefixes; now it goes under its last name only."""
    bed.write("batch.tmp/a", b"a")
    bed.settle()
    bed.write("batch.tmp/b", b"b")
    bed.discovery.hear("batch.tmp", "b")
    bed.settle()
    assert bed.store.writes == []
    (bed.folder / "batch.tmp").rename(bed.folder / "batch")
    drain(bed)
    assert sorted(bed.store.writes) == ["run/batch/a", "run/batch/b"]


def test_a_refusal_of_the_name_is_final(bed: Bed) -> None:
    """The store said that no blob can have this name: asking again every 5 min helps nobody, and holds no drain."""
    asked: list[str] = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise NameRefused("the blob store answered 400 InvalidUri")

    bed.store.before["put"] = refuse
    bed.write("x", b"x")
    bed.discovery.drain()
    for _ in range(3):
        bed.scan()
        bed.work()
    assert bed.discovery.finished
    assert asked == ["run/x"]
    assert bed.names() == ["x"]
    assert reasons(bed) == {"x": "the blob store answered 400 InvalidUri"}
    failure = bed.files.failure("x")
    assert failure
    assert failure.due == float("inf")
    shown = bed.files.describe("x")
    assert shown
    assert (shown.state, shown.next_try) == ("failed", None)


def test_a_file_that_is_refused_holds_the_drain_and_stands_in_the_result_of_a_stop_at_once(
    make: Callable[..., Bed],
) -> None:
    """Whoever chose `refuse` decides: removing the blob lets the file go, a stop at once ends without it, and says so."""
    bed = make(on_conflict="refuse")
    for content in b"first", b"other":
        bed.write("x", content)
        bed.upload("x")
        bed.due()
    bed.discovery.drain()
    bed.settle()
    assert not bed.discovery.finished
    bed.give_back()
    with opened(bed.share.fd, "run") as top:
        run = Run(Session("run", State.STOPPED, 0, STARTED), bed.files)
        ended = result(run, Sealed({}), scan(top, bed.discovery.rule))
    assert (bed.names(), ended.files.left_behind, ended.files.failed) == (["x"], 1, 1)
    (left,) = ended.left_behind
    assert left.path == "x"
    assert left.reason.endswith("refused")


def test_all_kinds_lie_side_by_side_and_none_stops_another(make: Callable[..., Bed]) -> None:
    """Each in a folder of its own; and one whose name the store refuses, one that it refuses, one that ends in a fault."""
    bed = make(temporary=".filling")
    sent, shown_too, alone = {"good"}, {"named", "refused", "fault"}, set[str]()
    for name in *sent, *shown_too:
        bed.write(name, b"x")
    kinds = (SENT, sent), ([one for one in SHOWN if not one.endswith("/")], shown_too), (ALONE, alone)
    for at, (paths, into) in enumerate(kinds):
        for number, path in enumerate(paths):
            put(bed, f"{at}-{number}/{path}")
            into.add(f"{at}-{number}/{path}")
    for number, (name, make_one) in enumerate(OBJECTS.items()):
        (bed.folder / f"o-{number}").mkdir()
        make_one(bed.folder / f"o-{number}/{name}")
        shown_too.add(f"o-{number}/{name.removesuffix('.completed').removesuffix('.processing')}")
    errors = {"run/named": NameRefused("no"), "run/refused": StoreRefused("403"), "run/fault": ZeroDivisionError()}

    def fails(name: str) -> None:
        if name in errors:
            raise errors[name]

    bed.store.before["put"] = fails
    bed.discovery.drain()
    for _ in range(3):
        bed.scan()
        bed.work()
        bed.walk()
    assert set(reasons(bed)) == {shown(path) for path in shown_too}
    assert all(reasons(bed).values())
    assert {name.removeprefix("run/") for name in bed.store.writes} == sent
    assert alone <= set(bed.names())
    assert not sent & set(bed.names())
    assert not bed.discovery.finished
    errors.clear()
    bed.settle()
    bed.scan()
    assert bed.discovery.finished, "only what can never be sent is left"
    assert {"run/refused", "run/fault"} <= set(bed.store.writes)


@pytest.mark.parametrize("extensions", [".bin", ".BIN"])
def test_a_file_with_another_extension_is_left_alone(make: Callable[..., Bed], extensions: str) -> None:
    bed = make(extensions=extensions)
    for path in "x.bin", "a/Y.BIN", "x.txt", "bin", "a.bin/z":
        put(bed, path)
    drain(bed)
    assert (bed.names(), reasons(bed)) == (["a.bin/z", "bin", "x.txt"], {})
    assert sorted(bed.store.writes) == ["run/a/Y.BIN", "run/x.bin"]

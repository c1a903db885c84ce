"""Names, settings and records made by chance: each is refused with a reason, or taken exactly as it is."""

import os
import shutil
from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.invariants.bed import CONNECTION, Bed
from uploader.session import InvalidRecord, Session, State, check_name
from uploader.settings import Settings
from uploader.share.scan import Rule

# Alphabets that hold what is special somewhere: to paths, to blobs' names, to headers, to HTML, to the shell, to UTF-8.
SPECIAL = [*"ab.-_ %#?&+=;:,'\"<>|*()[]{}~@!$^`\\", "\n", "\t", "\x7f", "\x00", "é", "e\u0301", "数", "🚀", "\u202e", "\ufffe", "\udcff", ".tmp", ".bin",
           ".processing", ".completed", "..", "/"]  # fmt: skip
TEXT = st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=12).map("".join)
FILE_NAMES = TEXT.filter(lambda name: "/" not in name and "\x00" not in name and name not in {".", ".."})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["session", "state", "owner", "extensions", "started_at", "x"]), inner, max_size=6),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(st.tuples(FILE_NAMES, FILE_NAMES), min_size=1, max_size=6, unique=True))
@settings(max_examples=80)
def test_a_name_is_sent_as_it_is_or_left_alone_or_shown_and_stops_no_other(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, str]]
) -> None:
    """Whatever names lie in a folder, each has one of three ends, and a good file arrives."""
    root = tmp_path_factory.mktemp("names")
    bed = Bed(root)
    try:
        rule = Rule((), "run/")
        bed.write("good.bin", b"good")
        written = {}
        for folder, name in names:
            path = f"{folder}/{name}"
            try:
                bed.write(path, path.encode("utf-8", "surrogateescape"))
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
            written[path] = path.encode("utf-8", "surrogateescape")
        for _ in range(3):
            bed.scan()
            bed.work()
            bed.walk()
        assert bed.content("good.bin") == b"good"
        left = set(bed.names())
        for path, content in written.items():
            folder, _, name = path.partition("/")
            if name.endswith((".processing", ".completed")):
                continue  # these names are ours: taken for a claim, or for what was sent
            if folder.startswith(".") or rule.unfinished(folder):
                assert path in left, "what is hidden or not finished is left alone"
            elif rule.eligible(name) and not rule.objection(path):
                assert bed.content(path) == content
                assert path not in left
            else:
                assert path in left, "what cannot be sent stays"
        sent = {name.removeprefix("run/") for name in bed.store.writes}
        assert {path for path in sent if f"{path}.processing" not in written} <= {*written, "good.bin"}
    finally:
        bed.close()
        shutil.rmtree(os.fsencode(root))


@given(JSON, TEXT)
@settings(max_examples=300)
def test_a_record_is_read_as_it_is_or_refused(value: object, name: str) -> None:
    """No content of a record ends a shard with an unexpected exception."""
    for data in (name.encode("utf-8", "surrogateescape"), orjson.dumps(str(value).encode("utf-8", "replace").decode())):
        refused_or_good(data, name)
    with suppress(orjson.JSONEncodeError):  # half a pair of UTF-16 is no JSON
        refused_or_good(orjson.dumps(value), "ab")


def refused_or_good(data: bytes, name: str) -> None:
    try:
        session = Session.from_json(data, name)
    except InvalidRecord:
        return
    assert session.name == name == check_name(name)
    assert isinstance(session.state, State)
    assert session.owner >= 0


NUMBERS = [
    "scan_interval",
    "settle",
    "queue_size",
    "connections",
    "memory",
    "block_size",
    "retention",
    "sweep_interval",
    "nfs_timeout",
    "port",
    "max_sessions",
]
VALUES = st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "1e300",
        "inf",
        "-inf",
        "nan",
        "0x10",
        " 7 ",
        "7.5",
        "99999999999999999999",
        "",
        "ten",
        "\u0661",
        "1_000",
        "65536",
        "1048576",
    ]
)


@given(st.dictionaries(st.sampled_from(NUMBERS), VALUES, min_size=1, max_size=4))
@settings(max_examples=200)
def test_settings_are_refused_or_within_their_bounds(given_settings: dict[str, str]) -> None:
    """No accepted setting can make a shard wait for ever, or use unbounded memory."""
    required = {"root": "/", "container": "uploads", "ordinal": 0, "AZURE_STORAGE_CONNECTION_STRING": CONNECTION}
    try:
        made = Settings(**required, **given_settings)  # type: ignore[arg-type]
    except ValidationError:
        return
    assert 0 <= made.settle <= 86_400
    assert 0.05 <= made.scan_interval <= 3600
    assert 0 <= int(made.retention * 1e9) <= 366 * 86_400 * 10**9
    assert made.memory >= 2 * made.block_size
    assert 1 <= made.connections <= 1024
    assert 1 <= made.port <= 65_535

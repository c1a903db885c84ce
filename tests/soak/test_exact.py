"""The account of a session after kills: exact, and able to find every kind of fault."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.endpoint.store import Block
from tests.need import need
from tests.soak.account import Expected, Seen, differences, print_of
from tests.soak.exact import SESSION, Exact
from tests.soak.seen import files_of
from tests.soak.troubles import KEPT, NO_NAME

FILE = KEPT[0]
BLOB = f"{SESSION}/{FILE}"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exact]:
    """A session of 300 files that has ended after two kills of each program."""
    need("setpriv")
    it = Exact(tmp_path_factory.mktemp("exact"), 300, 2, "1", at_once=False)
    yield it
    it.close()


@pytest.fixture(scope="module")
def account(ended: Exact) -> tuple[Expected, Seen]:
    """What must have become of its files, and what is seen of it."""
    return ended.expected, ended.look()


def test_every_file_is_accounted_for(account: tuple[Expected, Seen]) -> None:
    """Result, receipts, store, share and command agree on 280 good files and on 20 that fail or stay."""
    expected, seen = account
    assert differences(expected, seen) == []
    assert (len(expected.sent), len(expected.left), len(expected.reasons)) == (284, 16, 13)


def _other_result(seen: Seen) -> None:
    seen.results["status"]["files"]["sent"] += 1


def _other_reason(seen: Seen) -> None:
    seen.results["results"]["left_behind"][0]["reason"] = "none"


BREAKS: dict[str, tuple[Callable[[Seen], object], str]] = {
    "a blob is deleted": (lambda seen: seen.blobs.pop(BLOB), f"store: no '{BLOB}'"),
    "a blob is replaced": (lambda seen: seen.blobs.update({BLOB: print_of(b"other")}), f"store: '{BLOB}' is (5, "),
    "a blob is written again": (lambda seen: seen.etags.update({BLOB: "new"}), f"receipts, etag: '{BLOB}' is "),
    "a blob that nobody sent": (lambda seen: seen.blobs.update(x=(0, "", "")), "store: 'x' should not be there"),
    "a file on the share is taken away": (lambda seen: seen.share.pop(NO_NAME), f"share: no '{NO_NAME}'"),
    "a file on the share is changed": (lambda seen: seen.share.update({NO_NAME: b""}), f"share: '{NO_NAME}' is b'', "),
    "a file comes back": (lambda seen: seen.share.update({FILE: b""}), f"share: '{FILE}' should not be there"),
    "a receipt is missing": (lambda seen: seen.receipts.pop(), "receipts, size: no "),
    "a receipt is there twice": (lambda seen: seen.receipts.append(seen.receipts[0]), " has 2"),
    "a receipt says something else": (lambda seen: seen.receipts[0].update(crc64=""), "receipts, crc64: "),
    "a result counts another number": (_other_result, "result, status: 'files' is "),
    "a result has no reason": (_other_reason, "left behind, results: "),
    "the journals stay": (lambda seen: seen.own.append("receipts/x"), "share: receipts/x is still there"),
    "verify finds less": (lambda seen: seen.verified.update(fine=283), "nfs-watch verify: 'fine' is 283, not 284"),
    "wait says that all is sent": (lambda seen: setattr(seen, "waited", 0), "nfs-watch wait: 'exit code' is 0, not 1"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_fault_is_named(account: tuple[Expected, Seen], name: str) -> None:
    """Whoever compares has to be able to fail: each break of what was seen is named."""
    expected, seen = account[0], deepcopy(account[1])
    break_it, said = BREAKS[name]
    break_it(seen)
    assert [line for line in differences(expected, seen) if said in line]


def test_what_is_really_broken_is_seen(ended: Exact, account: tuple[Expected, Seen]) -> None:
    """A blob is deleted and one is replaced in the store, and a file is taken from the share: all who look find that."""
    deleted, replaced = list(account[0].sent)[:2]
    ended.endpoint.store.delete("uploads", f"{SESSION}/{deleted}")
    ended.endpoint.store.put_blob("uploads", f"{SESSION}/{replaced}", Block("", 5, 0, b"other"), {}, {})
    (ended.folder / NO_NAME).unlink()
    found = {line.partition(" is ")[0] for line in differences(ended.expected, ended.look())}
    assert found == {
        f"store: no '{SESSION}/{deleted}'",
        f"store: '{SESSION}/{replaced}'",
        f"share: no '{NO_NAME}'",
        f"receipts, etag: '{SESSION}/{deleted}' should not be there",
        f"receipts, etag: '{SESSION}/{replaced}'",
        *(f"nfs-watch verify: '{name}'" for name in ("fine", "missing", "changed", "good")),
    }


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A link to a missing file on the share is no error of the comparison."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to("nowhere")
    assert files_of(tmp_path) == {"a/link": b"no regular file"}

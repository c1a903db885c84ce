"""A short soak of real shards and a router under faults, and tests that its checker sees each kind of loss."""

import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tests.endpoint.store import Block
from tests.need import need
from tests.soak.checker import Checker
from tests.soak.content import BLOCK, fingerprint, pieces
from tests.soak.ledger import CheckedStore, Ledger
from tests.support.programs import TOP

PATH = "s/x.bin"
FIRST = fingerprint(PATH, 0, BLOCK + 100)
SECOND = fingerprint(PATH, 1, 500)


@pytest.mark.timeout(900)
def test_nothing_is_lost_under_fire(tmp_path: Path) -> None:
    """Half a minute of kills, faults and scaling, with seed 1; longer runs start by hand."""
    need("unshare", "mount")
    argv = [sys.executable, "-m", "tests.soak", "--seconds", "30", "--seed", "1", "--folder", str(tmp_path / "soak")]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=880, check=False)
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


@pytest.fixture
def store() -> CheckedStore:
    """A store whose ledger knows a file of two finished versions."""
    ledger = Ledger()
    store = CheckedStore(ledger)
    store.create("uploads")
    for content in (FIRST, SECOND):
        ledger.landed(PATH, ledger.finished(PATH, content))
    return store


def put(store: CheckedStore, content: tuple[tuple[int, int], ...], path: str = PATH) -> list[str]:
    blocks = [Block(b64encode(crc.to_bytes(8, "big")).decode(), length, crc, None) for length, crc in content]
    for block in blocks:
        store.put_block("uploads", path, block)
    store.put_block_list("uploads", path, [("Latest", block.name) for block in blocks], {}, {})
    return store.ledger.wrong


def test_the_checker_accepts_each_finished_version_in_turn(store: CheckedStore) -> None:
    """No false alarm where a name is written again."""
    assert put(store, FIRST) == []
    store.snapshot("uploads", PATH, {})
    assert put(store, SECOND) == []
    store.ledger.check_end(store.blobs("uploads"))
    assert store.ledger.wrong == []


@pytest.mark.parametrize(
    ("content", "path", "says"),
    [
        (FIRST[:1], PATH, "no finished version"),
        ((FIRST[0], SECOND[0]), PATH, "no finished version"),
        (SECOND, "s/y.bin", "nobody may send it"),
    ],
)
def test_the_checker_sees_what_is_half_mixed_or_misnamed(
    store: CheckedStore, content: tuple[tuple[int, int], ...], path: str, says: str
) -> None:
    """Each would be lost or wrong content in the store, which a soak has to report."""
    assert says in put(store, content, path)[0]


def test_the_checker_sees_an_old_version_over_a_newer_one(store: CheckedStore) -> None:
    """Two owners could do this without conditional writes (I9)."""
    put(store, SECOND)
    assert "went over" in put(store, FIRST)[0]


def test_the_checker_sees_content_that_is_replaced_without_a_snapshot(store: CheckedStore) -> None:
    """Other content under a blob's name would vanish without a trace (I12)."""
    put(store, FIRST)
    assert "replaced without a snapshot" in put(store, SECOND)[0]


def test_the_checker_knows_both_names_of_a_file_whose_folder_is_renamed(store: CheckedStore, tmp_path: Path) -> None:
    """Wherever it lies, and under whichever name it was sent; nowhere else."""
    store.ledger.also(PATH, "s/now/x.bin")
    file = store.ledger.files[PATH]
    checker = Checker(tmp_path, store.ledger, list)
    (tmp_path / "s/now").mkdir(parents=True)
    (tmp_path / "s/now/x.bin.processing").write_bytes(b"")
    checker._look(file)
    (tmp_path / "s/now/x.bin.processing").unlink()
    assert put(store, SECOND, "s/now/x.bin") == []
    checker._look(file)
    store.ledger.check_end(store.blobs("uploads"))
    assert store.ledger.wrong == []
    put(store, FIRST)
    assert "went over" in store.ledger.wrong[0]


def test_the_checker_sees_an_old_version_or_none_in_the_end(store: CheckedStore) -> None:
    """The newest version of every file has to be in the store when all is done."""
    put(store, FIRST)
    store.ledger.check_end(store.blobs("uploads"))
    store.ledger.check_end({})
    assert [one.partition(":")[0] for one in store.ledger.wrong] == [
        "not the newest version in the store",
        "not in the store",
    ]


def test_the_checker_sees_a_source_that_goes_too_soon(store: CheckedStore, tmp_path: Path) -> None:
    """A deletion of the second version, while the store has the first, breaks I1."""
    checker = Checker(tmp_path, store.ledger, list)
    (tmp_path / "s").mkdir()
    file = store.ledger.files[PATH]
    (tmp_path / f"{PATH}.processing").write_bytes(b"".join(pieces(PATH, 1, 500)))
    put(store, FIRST)
    checker._look(file)
    assert store.ledger.wrong == []
    (tmp_path / f"{PATH}.processing").unlink()
    checker._look(file)
    assert "without being in the store" in store.ledger.wrong[0]


def test_a_container_that_was_deleted_excuses_only_what_was_in_it(store: CheckedStore, tmp_path: Path) -> None:
    """A fault that empties the store must not hide a real loss."""
    put(store, FIRST)
    store.drop("uploads")
    store.create("uploads")
    Checker(tmp_path, store.ledger, list)._look(store.ledger.files[PATH])
    assert "version 1" in store.ledger.wrong[0]
    store.ledger.check_end({})
    assert "not in the store" in store.ledger.wrong[1]

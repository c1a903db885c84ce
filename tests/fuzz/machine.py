"""The state machine: files arrive, grow and come again while two owners scan, upload, sweep and die, in any order.

The real functions of discovery, workers and sweeper on real files, one at a time, before a store in memory. The model
is a dict: each path's newest finished content.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.steps import Recorded, step
from tests.invariants.bed import BLOCK, Bed, Hooked
from uploader.blob.store import Label
from uploader.errors import StoreAway

PATHS = st.sampled_from(["a.bin", "d/ü.bin"])
SIZES = st.sampled_from([0, 100, 2 * BLOCK + 9])
OWNERS = st.sampled_from([0, 1])
CALLS = st.sampled_from(["head", "put", "stage", "commit", "after put", "after commit"])


class Crash(BaseException):
    """SIGKILL, as nearly as one thread can imitate it."""


class Checked(Hooked):
    """A store that tells the machine what is committed, and has hooks after the effect too."""

    def __init__(self, took: Callable[[str, bytes], None]) -> None:
        super().__init__()
        self.took = took

    def put(self, name: str, data: bytes, label: Label, etag: str | None) -> str:
        now = super().put(name, data, label, etag)
        self.took(name, self.content(name))
        self._call("after put", name)
        return now

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        now = super().commit(name, block_ids, label, etag)
        self.took(name, self.content(name))
        self._call("after commit", name)
        return now


class Machine(Recorded):
    """Two owners of one session, each a bed that can die and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.store = Checked(self._took)
        self.beds = [Bed(self.root, self.store), Bed(self.root, self.store)]
        self.model: dict[str, bytes] = {}
        self.versions: dict[str, list[bytes]] = {}
        self.newest: dict[str, int] = {}
        self.writers: dict[str, tuple[int, bytes]] = {}
        self.changed_meanwhile: set[str] = set()
        self.wrong: list[str] = []  # an assertion raised in the store would count as a failed file
        self.numbers = itertools.count()

    def _new(self, path: str, size: int) -> bytes:
        head = f"{next(self.numbers)} {path} ".encode()
        return (head * (size // len(head) + 1))[:size]

    def _took(self, name: str, content: bytes) -> None:
        """Fail for half-written content, unless a writer pauses too long, and for old content over newer."""
        path = name.removeprefix("run/")
        if path in self.changed_meanwhile:
            self.wrong.append(f"{path} changed while it was read")
        newest, numbers = self.newest.get(path, -1), self._numbers(path, content)
        if not numbers:
            self.wrong.append(f"{path}: half-written or mixed")
        elif numbers[-1] < newest:
            self.wrong.append(f"version {numbers[-1]} of {path} over a newer one")
        else:
            self.newest[path] = next(number for number in numbers if number >= newest)

    def _numbers(self, path: str, content: bytes) -> list[int]:
        """Return the versions that this content may be, the unfinished one included: empty versions are alike."""
        versions = self.versions.get(path, [])
        numbers = [number for number, version in enumerate(versions) if version == content]
        writing = path in self.writers and self.writers[path][1].startswith(content)
        return [*numbers, len(versions)] if writing else numbers

    def _finished(self, path: str, content: bytes) -> None:
        self.model[path] = content
        self.versions.setdefault(path, []).append(content)

    @step(path=PATHS, size=st.sampled_from([100, 2 * BLOCK + 9]))
    def arrive(self, path: str, size: int) -> None:
        if path not in self.writers:
            content = self._new(path, size)
            self.versions.setdefault(path, []).append(content)
            self.beds[0].write(path, content)
            self.model[path] = content

    @step(path=PATHS, size=SIZES)
    def begin_in_place(self, path: str, size: int) -> None:
        target = self.beds[0].folder / path
        if path in self.writers or self._there(path):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        content = self._new(path, size)
        os.write(fd, content)
        self.writers[path] = (fd, content)
        self.model.pop(path, None)

    @step(path=PATHS, size=SIZES)
    def append(self, path: str, size: int) -> None:
        if path in self.writers:
            fd, content = self.writers[path]
            more = self._new(path, size)
            self.writers[path] = (fd, content + more)
            os.write(fd, more)

    @step(path=PATHS)
    def finish(self, path: str) -> None:
        if path in self.writers:
            fd, content = self.writers.pop(path)
            os.close(fd)
            self._finished(path, content)

    @step(owner=OWNERS)
    def scan(self, owner: int) -> None:
        self.beds[owner].scan()

    @step()
    def scan_both(self) -> None:
        """Let both owners queue the same files, so that the slower one's items are out of date."""
        for bed in self.beds:
            bed.scan()

    @step(owner=OWNERS)
    def work(self, owner: int) -> None:
        self.beds[owner].work()

    @step(owner=OWNERS, call=CALLS, what=st.sampled_from(["away", "append", "arrive", "other"]))
    def work_disturbed(self, owner: int, call: str, what: str) -> None:
        """Let something happen to a file during a call to the store about it."""

        def happens(name: str) -> None:
            self.store.before.clear()
            path = name.removeprefix("run/")
            match what:
                case "crash":
                    raise Crash
                case "away":
                    raise StoreAway("the reply is lost")
                case "append":
                    if call == "stage" and path in self.writers:
                        self.changed_meanwhile.add(path)  # before the last look at it
                    self.append(path, 100)
                case "arrive":
                    self.arrive(path, 200)
                case _:
                    self.beds[1 - owner].scan()
                    self.beds[1 - owner].work()

        self.beds[owner].scan()
        self.store.before[call] = happens
        try:
            self.beds[owner].work()
        except Crash:
            self.crash(owner)
        self.store.before.clear()
        self.changed_meanwhile.clear()

    @step(owner=OWNERS, call=CALLS)
    def die_at_work(self, owner: int, call: str) -> None:
        self.work_disturbed(owner, call, "crash")

    @step(owner=OWNERS, path=PATHS)
    def append_while_it_is_sent(self, owner: int, path: str) -> None:
        self.begin_in_place(path, 2 * BLOCK + 9)
        if path in self.writers:
            self.work_disturbed(owner, "stage", "append")

    @step(owner=OWNERS)
    def sweep(self, owner: int) -> None:
        """A writer that pauses for longer than settling and retention may lose its file, but not what it had written."""
        self.beds[owner].walk()
        self.beds[owner].due()
        for path, (fd, content) in list(self.writers.items()):
            if os.fstat(fd).st_nlink == 0:
                os.close(fd)
                del self.writers[path]
                self._finished(path, content)

    @step(owner=OWNERS)
    def give_back(self, owner: int) -> None:
        self.beds[owner].give_back()

    @step(owner=OWNERS)
    def crash(self, owner: int) -> None:
        self.beds[owner].close()
        self.beds[owner] = Bed(self.root, self.store)

    def _there(self, path: str) -> bool:
        plain = str(self.beds[0].folder / path)
        return any(os.path.exists(plain + suffix) for suffix in ("", ".processing", ".completed"))

    def _content(self, path: str) -> bytes | None:
        return self.store.content(f"run/{path}") if self.store.head(f"run/{path}") else None

    def check(self) -> None:
        """No content is lost: each finished version is on the share or in the store."""
        assert not self.wrong, self.wrong[0]
        for path, content in self.model.items():
            assert self._there(path) or self._content(path) == content, f"{path} is lost"

    def rest(self) -> None:
        """After all work is done, the newest version of each path is in the store, and nothing is left on the share."""
        try:
            self.store.before.clear()
            for path in list(self.writers):
                self.finish(path)
            self.crash(0)
            self.beds[0].settle()
            assert not self.wrong, self.wrong[0]
            assert not (left := self.beds[0].names()), f"{left} are left"
            for path, content in self.model.items():
                assert self._content(path) == content, f"{path} is not in the store as it was finished"
        finally:
            for fd, _ in self.writers.values():
                os.close(fd)
            for bed in self.beds:
                bed.close()
            shutil.rmtree(self.root)

"""The state machine: files arrive, grow and come again while two owners scan, upload, sweep and die, in any order.

The real functions of discovery, workers and sweeper on real files, one at a time, before a store in memory. The model
is a dict: each path's newest finished content. There is a machine for what each kind of file system can tell.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st

from tests.fuzz.faults import coarse_times, failing_unlinks
from tests.fuzz.steps import Recorded, step
from tests.fuzz.writers import Mapped, Writer, rewrite
from tests.invariants.bed import BLOCK, NFS, Bed, Hooked
from uploader.blob.store import Label
from uploader.errors import StoreAway
from uploader.share.filesystem import FileSystem

PATHS = st.sampled_from(["a.bin", "d/ü.bin"])
SIZES = st.sampled_from([0, 100, 2 * BLOCK + 9])
OWNERS = st.sampled_from([0, 1])
FULL = st.sampled_from([100, 2 * BLOCK + 9])
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
    """Two owners of one session, each a bed that can die and come back; the folder tells all that it can."""

    tells: ClassVar[FileSystem | None] = None
    coarse: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.store = Checked(self._took)
        self.stack = ExitStack()
        if self.coarse:
            self.stack.enter_context(coarse_times())
        self.beds = [self._bed(), self._bed()]
        self.model: dict[str, bytes] = {}
        self.versions: dict[str, list[bytes]] = {}
        self.newest: dict[str, int] = {}
        self.writers: dict[str, Writer] = {}
        self.markers: dict[str, bytes] = {}
        self.changed_meanwhile: set[str] = set()
        self.wrong: list[str] = []  # an assertion raised in the store would count as a failed file
        self.numbers = itertools.count()

    def _bed(self) -> Bed:
        return Bed(self.root, self.store, tells=self.tells)

    def _new(self, path: str, size: int) -> bytes:
        head = f"{next(self.numbers)} {path} ".encode()
        return (head * (size // len(head) + 1))[:size]

    def _took(self, name: str, content: bytes) -> None:
        """Fail for half-written content, unless a writer pauses too long, and for old content over newer."""
        path = name.removeprefix("run/")
        if path in self.changed_meanwhile:
            if not self.coarse:  # else only the comparison before the deletion sees it
                self.wrong.append(f"{path} changed while it was read")
            return
        newest, numbers = self.newest.get(path, -1), self._numbers(path, content)
        if not numbers:
            self.wrong.append(f"{path}: half-written or mixed")
        elif numbers[-1] < newest:
            self.wrong.append(f"version {numbers[-1]} of {path} over a newer one")
        else:
            self.newest[path] = next(number for number in numbers if number >= newest)

    def _numbers(self, path: str, content: bytes) -> list[int]:
        """Return the versions that this content may be: empty versions are alike.

        The unfinished one is among them where nobody can tell that it is open.
        """
        versions = self.versions.get(path, [])
        numbers = [number for number, version in enumerate(versions) if version == content]
        blind = not self.beds[0].share.tells.leases
        writing = blind and path in self.writers and self.writers[path].wrote(content)
        return [*numbers, len(versions)] if writing else numbers

    def _finished(self, path: str, content: bytes) -> None:
        self.model[path] = content
        self.versions.setdefault(path, []).append(content)

    @step(path=PATHS, size=FULL)
    def arrive(self, path: str, size: int) -> None:
        if path not in self.writers:
            content = self._new(path, size)
            self.versions.setdefault(path, []).append(content)
            self.beds[0].write(path, content)
            self.model[path] = content

    @step(path=PATHS, size=SIZES)
    def begin_in_place(self, path: str, size: int) -> None:
        self._begin(Writer, path, size)

    @step(path=PATHS, size=FULL)
    def map_in_place(self, path: str, size: int) -> None:
        self._begin(Mapped, path, size)

    def _begin(self, kind: type[Writer], path: str, size: int) -> None:
        if path not in self.writers and not self._there(path):
            target = self._name(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.writers[path] = kind(target, self._new(path, size))
            self.model.pop(path, None)

    @step(path=PATHS, size=SIZES)
    def append(self, path: str, size: int) -> None:
        if path in self.writers:
            self.writers[path].write(self._new(path, size))

    @step(path=PATHS)
    def finish(self, path: str) -> None:
        if path in self.writers:
            writer = self.writers.pop(path)
            writer.close()
            self._finished(path, writer.content)

    @step(path=PATHS)
    def rewrite(self, path: str) -> None:
        """Change what lies there, and put the mtime back. Within one tick of a step of ours nobody could see that."""
        for suffix in ("", ".processing", ".completed"):
            if (target := self._name(path, suffix)).exists():
                if path not in self.writers and target.read_bytes() == self.model.get(path):
                    self.beds[0].tick()
                    rewrite(target, content := self._new(path, target.stat().st_size))
                    self._finished(path, content)
                return

    @step(path=PATHS)
    def mark(self, path: str) -> None:
        """Somebody makes a file that is called like a completed one; often it gets the inode of one just deleted."""
        target = self._name(path, ".completed")
        if not self._taken_for_another(path) and not target.exists() and self._content(path):
            target.parent.mkdir(exist_ok=True)
            self.markers[path] = content = self._new(path, 200)
            target.write_bytes(content)

    def _taken_for_another(self, path: str) -> bool:
        """Tell whether an owner remembers a file of this name that the other has deleted, and births tell nothing.

        The last section of docs/design.md: a marker that gets its inode is sent.
        """
        proofs = (bed.completed.proofs.get(("run", path)) for bed in self.beds)
        return any(proof and proof.born is None for proof in proofs)

    @step(path=PATHS)
    def unmark(self, path: str) -> None:
        if self.markers.pop(path, None):
            self._name(path, ".completed").unlink()

    @step(owner=OWNERS, path=PATHS)
    def mark_what_was_swept(self, owner: int, path: str) -> None:
        self.arrive(path, 100)
        self.scan(owner)
        self.work(owner)
        self.sweep(owner)
        self.mark(path)

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

    @step(owner=OWNERS, call=CALLS, what=st.sampled_from(["away", "append", "arrive", "other", "rewrite"]))
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
                case "rewrite":
                    if call == "stage" and path not in self.writers:
                        self.changed_meanwhile.add(path)
                    self.rewrite(path)
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

    @step(owner=OWNERS, path=PATHS, size=FULL)
    def store_while_it_is_sent(self, owner: int, path: str, size: int) -> None:
        """Store to pages that were stored to before: this alone moves no time."""
        self.map_in_place(path, size)
        self.append(path, 100)
        self.work_disturbed(owner, "put", "append")
        self.sweep(owner)

    @step(owner=OWNERS, path=PATHS)
    def rewrite_what_was_sent(self, owner: int, path: str) -> None:
        self.arrive(path, 100)
        self.scan(owner)
        self.work(owner)
        self.rewrite(path)
        self.sweep(owner)

    @step(owner=OWNERS, path=PATHS, first=st.sampled_from([0, 1]))
    def give_back_by_halves(self, owner: int, path: str, first: int) -> None:
        self.arrive(path, 100)
        self.die_at_work(owner, "put")
        self.unlinks_fail(owner, "give_back", first)

    @step(owner=OWNERS)
    def sweep(self, owner: int) -> None:
        """A writer that pauses for longer than settling and retention may lose its file, but not what it had written."""
        self.beds[owner].walk()
        self.beds[owner].due()
        for path, writer in list(self.writers.items()):
            if writer.gone():
                self.finish(path)

    @step(owner=OWNERS)
    def give_back(self, owner: int) -> None:
        self.beds[owner].give_back()

    @step(owner=OWNERS)
    def crash(self, owner: int) -> None:
        self.beds[owner].close()
        self.beds[owner] = self._bed()

    @step(owner=OWNERS, what=st.sampled_from(["work", "sweep", "give_back"]), first=st.sampled_from([0, 1]))
    def unlinks_fail(self, owner: int, what: str, first: int) -> None:
        """Let them fail from this one on, so that a link or a deletion is half done."""
        with failing_unlinks(first), suppress(OSError):
            getattr(self, what)(owner)

    def _name(self, path: str, suffix: str = "") -> Path:
        return self.beds[0].folder / (path + suffix)

    def _there(self, path: str) -> bool:
        names = ["", ".processing"] if path in self.markers else ["", ".processing", ".completed"]
        return any(self._name(path, suffix).exists() for suffix in names)

    def _content(self, path: str) -> bytes | None:
        return self.store.content(f"run/{path}") if self.store.head(f"run/{path}") else None

    def check(self) -> None:
        """No content is lost: each finished version is on the share or in the store."""
        assert not self.wrong, self.wrong[0]
        for path, content in self.model.items():
            assert self._there(path) or self._content(path) == content, f"{path} is lost"
        for path, content in self.markers.items():
            marker = self._name(path, ".completed")
            assert marker.exists(), f"the marker of {path} is gone"
            assert marker.read_bytes() == content, f"the marker of {path} is another file"

    def rest(self) -> None:
        """After all work is done, the newest version of each path is in the store, and nothing is left on the share."""
        try:
            self.store.before.clear()
            for path in list(self.writers):
                self.finish(path)
            for path in list(self.markers):
                self.unmark(path)
            self.crash(0)
            self.beds[0].settle()
            assert not self.wrong, self.wrong[0]
            kept = self._kept()
            left = [name for name in self.beds[0].names() if not name.startswith(tuple(kept))]
            assert not left, f"{left} are left"
            for path, content in self.model.items():
                assert self._content(path) == content or path in kept, f"{path} is not in the store as it was finished"
        finally:
            for writer in self.writers.values():
                writer.close()
            for bed in self.beds:
                bed.close()
            self.stack.close()
            shutil.rmtree(self.root)

    def _kept(self) -> set[str]:
        """Return the paths whose newest content is kept, and shown, because nobody can tell whose it is.

        After a restart, where no births are told, changed content may be that of another file with the same inode.
        """
        bed = self.beds[0]
        if bed.share.tells.births:
            return set()
        kept = {name.removesuffix(".completed") for name in bed.files.kept()}
        return {path for path in kept if self._holds(path)}

    def _holds(self, path: str) -> bool:
        """Tell whether the newest content lies on the share."""
        names = [self._name(path, suffix) for suffix in ("", ".processing", ".completed")]
        return any(name.exists() and name.read_bytes() == self.model.get(path) for name in names)


class Blind(Machine):
    """On an NFS mount, where nobody can tell who has a file open, or when one was made."""

    tells = NFS


class Coarse(Blind):
    """And its times are whole ticks of two seconds."""

    coarse = True

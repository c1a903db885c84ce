"""The state machine: files arrive, grow and come again while two owners scan, upload, sweep and die, in any order.

The real functions of discovery, workers and sweeper on real files, one at a time, before a store in memory. The model
is a dict: each path's newest finished content. There is a machine for what each kind of file system can tell.
"""

import itertools
import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st

from tests.fuzz.checked import Checked
from tests.fuzz.faults import coarse_times, failing_unlinks
from tests.fuzz.steps import Recorded, step
from tests.fuzz.writers import Mapped, Writer, rewrite
from tests.invariants.bed import BLOCK, NFS, Bed
from uploader.errors import StoreAway
from uploader.share.filesystem import FileSystem

PATHS = st.sampled_from(["a.bin", "d/ü.bin"])
SIZES = st.sampled_from([0, 100, 2 * BLOCK + 9])
OWNERS = st.sampled_from([0, 1])
FULL = st.sampled_from([100, 2 * BLOCK + 9])
CALLS = st.sampled_from(["head", "put", "stage", "commit", "after put", "after commit"])


FOLDERS = ("d", "e")  # the names that the one folder has in turn


class Crash(BaseException):
    """SIGKILL, as nearly as one thread can imitate it."""


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
        self.where = FOLDERS[0]

    def _bed(self) -> Bed:
        return Bed(self.root, self.store, tells=self.tells)

    def _new(self, path: str, size: int) -> bytes:
        head = f"{next(self.numbers)} {path} ".encode()
        return (head * (size // len(head) + 1))[:size]

    def _took(self, name: str, content: bytes, lost: bytes | None) -> None:
        """Fail for half-written content, unless a writer pauses too long, and for old content over newer."""
        path = self._path(name)
        if path in self.changed_meanwhile:
            if not self.coarse:  # else only the comparison before the deletion sees it
                self.wrong.append(f"{path} changed while it was read")
            return
        if lost is not None:
            self.wrong.append(f"{name}: {lost[:40]!r} was replaced without a snapshot")
        newest, numbers = self.newest.get(name, -1), self._numbers(path, content)
        if not numbers:
            self.wrong.append(f"{path}: half-written or mixed")
        elif numbers[-1] < newest:
            self.wrong.append(f"version {numbers[-1]} of {path} over a newer one")
        else:
            self.newest[name] = next(number for number in numbers if number >= newest)

    def _path(self, name: str) -> str:
        """Return the path, as the machine calls it, of a blob's name or a name below the session's folder."""
        folder, _, last = name.removeprefix("run/").rpartition("/")
        return f"{FOLDERS[0]}/{last}" if folder else last

    def _place(self, path: str) -> str:
        """Return where it lies now."""
        folder, _, last = path.rpartition("/")
        return f"{self.where}/{last}" if folder else last

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
            self.beds[0].write(self._place(path), content)
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

    @step()
    def rename_folder(self) -> None:
        """Give the folder its other name."""
        old, new = self.where, next(name for name in FOLDERS if name != self.where)
        if (self.beds[0].folder / old).exists():
            (self.beds[0].folder / old).rename(self.beds[0].folder / new)
            self.where = new

    @step(path=PATHS)
    def mark(self, path: str) -> None:
        """Somebody makes a file that is called like a completed one; often it gets the inode of one just deleted."""
        target = self._name(path, ".completed")
        if not self._taken_for_another(path) and not target.exists() and self._contents(path):
            target.parent.mkdir(exist_ok=True)
            self.markers[path] = content = self._new(path, 200)
            self.beds[0].tick()  # births are as coarse as the kernel's clock
            target.write_bytes(content)

    def _taken_for_another(self, path: str) -> bool:
        """Tell whether an owner remembers a file of this name that the other has deleted, and births tell nothing.

        The last section of docs/design.md: a marker that gets its inode is sent.
        """
        names = {path, path.replace(FOLDERS[0], FOLDERS[1], 1)} if "/" in path else {path}
        proofs = (bed.completed.proofs.get(("run", name)) for bed in self.beds for name in names)
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

    @step(owner=OWNERS, call=CALLS, what=st.sampled_from(["away", "append", "arrive", "other", "rewrite", "rename"]))
    def work_disturbed(self, owner: int, call: str, what: str) -> None:
        """Let something happen to a file during a call to the store about it."""

        def happens(name: str) -> None:
            self.store.before.clear()
            self._disturb(owner, self._path(name), call, what)

        self.beds[owner].scan()
        self.store.before[call] = happens
        try:
            self.beds[owner].work()
        except Crash:
            self.crash(owner)
        self.store.before.clear()
        self.changed_meanwhile.clear()

    def _disturb(self, owner: int, path: str, call: str, what: str) -> None:
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
            case "rename":
                self.rename_folder()
            case _:
                self.beds[1 - owner].scan()
                self.beds[1 - owner].work()

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

    @step(owner=OWNERS, path=PATHS, first=st.sampled_from([0, 1]), second=st.booleans())
    def take_back_by_halves(self, owner: int, path: str, first: int, *, second: bool) -> None:
        """Write to what was sent, perhaps when the next of its name is there; then the way back stops half-way."""
        self.arrive(path, 100)
        self.scan(owner)
        self.work(owner)
        self.rewrite(path)
        if second:
            self.arrive(path, 200)
        self.unlinks_fail(owner, "sweep", first)

    @step(owner=OWNERS, path=PATHS)
    def rename_what_was_sent(self, owner: int, path: str) -> None:
        """Let nobody remember it who sweeps it then."""
        self.arrive(path, 100)
        self.scan(owner)
        self.work(owner)
        self.rename_folder()
        self.crash(owner)
        self.sweep(owner)

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
        return self.beds[0].folder / (self._place(path) + suffix)

    def _there(self, path: str) -> bool:
        names = ["", ".processing"] if path in self.markers else ["", ".processing", ".completed"]
        return any(self._name(path, suffix).exists() for suffix in names)

    def _contents(self, path: str) -> list[bytes]:
        """Return what the store has of a path, under whatever name its folder had."""
        names = [f"run/{path}", *(f"run/{path.replace('d', folder, 1)}" for folder in FOLDERS[1:] if "/" in path)]
        return [content for name in names if (content := self.store.held(name)) is not None]

    def check(self) -> None:
        """No content is lost: each finished version is on the share or in the store."""
        assert not self.wrong, self.wrong[0]
        for path, content in self.model.items():
            assert self._there(path) or content in self._contents(path), f"{path} is lost"
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
            left = [name for name in self.beds[0].names() if self._path(_plain(name)) not in kept]
            assert not left, f"{left} are left"
            for path, content in self.model.items():
                assert content in self._contents(path) or path in kept, f"{path} is not in the store as it was finished"
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
        kept = {self._path(_plain(name)) for name, why in bed.files.kept().items() if why.startswith("kept: ")}
        return {path for path in kept if self._holds(path)}

    def _holds(self, path: str) -> bool:
        """Tell whether the newest content lies on the share."""
        names = [self._name(path, suffix) for suffix in ("", ".processing", ".completed")]
        return any(name.exists() and name.read_bytes() == self.model.get(path) for name in names)


def _plain(name: str) -> str:
    return name.removesuffix(".completed").removesuffix(".processing")


class Blind(Machine):
    """On an NFS mount, where nobody can tell who has a file open, or when one was made."""

    tells = NFS


class Coarse(Blind):
    """And its times are whole ticks of two seconds."""

    coarse = True

"""Producers as they are found: atomic moves, slow writers, bursts, deep folders, repeated names, odd names."""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.content import BLOCK, fingerprint, pieces
from tests.soak.ledger import Ledger
from tests.soak.writers import Writers, print_of

MIB = 1024 * 1024
FEW = 2
SLOW = 6
ODD_NAMES = [
    "a b.bin", "100%.bin", "q?x=1.bin", "#.bin", "a+b&c;d.bin", "'\"`$(x).bin", "-rf.bin", "naïve.bin", "nai\u0308ve.bin",
    "数据.bin", "🚀.bin", "%2e%2e.bin", "%41.bin", "x.processing.bin", "completed", "a..b", "<b>&amp;.bin", "~x.bin",
    "=1+1.csv", "CON", "é" * 100, "x" * 244, "UPPER.BIN", "trail .bin", "\u202eevil.bin", "@", "[1].bin", "{}.bin", "*.bin",
]  # fmt: skip
LEFT_ALONE = ["x.tmp", ".hidden.bin", "y.part", "z~", "w.crdownload", ".deep/x.bin"]


class Producer:
    """One session's writer: a thread, and one more for each slow writer."""

    def __init__(
        self, root: Path, session: str, seed: str, ledger: Ledger, *, largest: int, burst: int, may_pause: float
    ) -> None:
        self.folder = root / session
        self.session = session
        self.random = random.Random(seed)
        self.ledger = ledger
        self.writers = Writers(self.folder, ledger)
        self.largest = largest
        self.burst = burst
        self.may_pause = may_pause
        self.most_waiting = 4 * burst
        self.names: list[str] = []
        self.left_alone: dict[str, bytes] = {}
        self._number = 0
        self._larges = 0
        self._end = threading.Event()
        self._slow: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name=f"producer-{session}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Finish the files that are being written, and stop."""
        self._end.set()
        for thread in [self._thread, *self._slow]:
            thread.join(120)
            assert not thread.is_alive()

    def _run(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._leave_alone()
        kinds: dict[Callable[[], None], int] = {
            self._one: 40, self._again: 20, self._slowly: 6, self._odd: 8, self._deep: 8, self._empty: 4,
            self._burst: 3, self._large: 2, self._again_and_again: 4, self._mapped: 4, self._rewrite: 6, self._rename: 4,
        }  # fmt: skip
        try:
            self._large()
            while not self._end.wait(self.random.uniform(0.01, 0.25)):
                if self.ledger.waiting() < self.most_waiting:
                    self.random.choices(list(kinds), list(kinds.values()))[0]()
        except BaseException as error:
            self.ledger.wrong.append(f"the producer itself failed: {error!r}")
            raise

    def _name(self, folder: str = "") -> str:
        self._number += 1
        return f"{folder}{self._number:06}.bin"

    def _move_in(self, name: str, size: int, *, again: bool = True) -> None:
        """Write under a hidden name, then rename into place. `again`: the name may come again."""
        path = f"{self.session}/{name}"
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        version = self.ledger.finished(
            path, fingerprint(path, len(self.ledger.files[path].prints) if path in self.ledger.files else 0, size)
        )
        hidden = target.with_name(f".{self._number}-{version}"[:200])
        with hidden.open("wb") as file:
            for piece in pieces(path, version, size):
                file.write(piece)
        hidden.rename(target)
        self.ledger.landed(path, version)
        if again:
            self.names.append(name)

    def _size(self) -> int:
        return int(
            self.random.choice(
                [
                    self.random.randrange(16, 2000),
                    self.random.randrange(16, 100_000),
                    self.random.randrange(16, 5 * BLOCK),
                    BLOCK,
                    BLOCK + 16,
                    2 * BLOCK,
                ]
            )
        )

    def _one(self) -> None:
        self._move_in(self._name(), self._size())

    def _empty(self) -> None:
        self._move_in(self._name("empty/"), 0)

    def _again(self) -> None:
        if self.names:
            self._move_in(self.random.choice(self.names[-50:]), self._size())

    def _again_and_again(self) -> None:
        name = self._name("again/")
        for _ in range(self.random.randrange(2, 8)):
            self._move_in(name, self._size())
            self._end.wait(self.random.uniform(0, 0.3))

    def _odd(self) -> None:
        self._move_in(self.random.choice(["", "odd/", "odd folder/ü/"]) + self.random.choice(ODD_NAMES), self._size())

    def _deep(self) -> None:
        depth = self.random.randrange(1, 20)
        self._move_in(self._name("".join(f"d{self.random.randrange(3)}/" for _ in range(depth))), self._size())

    def _burst(self) -> None:
        folder = f"burst{self._number}/"
        for _ in range(self.random.randrange(self.burst // 4, self.burst)):
            self._move_in(self._name(folder), self.random.randrange(16, 4000))

    def _large(self) -> None:
        """Write a few files of the largest size, then smaller ones."""
        self._larges += 1
        largest = self.largest if self._larges <= FEW else min(self.largest, 12 * MIB)
        self.ledger.counted[f"files of {largest // 2 // MIB} to {largest // MIB} MiB"] += 1
        self._move_in(self._name("large/"), self.random.randrange(largest // 2, largest))

    def _beside(self, work: Callable[..., None], *given: object) -> None:
        """Let a writer that takes its time run beside the others, of which there are a few."""
        self._slow = [thread for thread in self._slow if thread.is_alive()]
        if len(self._slow) < SLOW:
            self._slow.append(threading.Thread(target=self._guarded, args=(work, *given), daemon=True))
            self._slow[-1].start()

    def _guarded(self, work: Callable[..., None], *given: object) -> None:
        try:
            work(*given)
        except BaseException as error:
            self.ledger.wrong.append(f"a writer itself failed: {error!r}")
            raise

    def _slowly(self) -> None:
        """Write in place, a piece at a time, with pauses that are shorter than the time to settle."""
        pause = self.random.uniform(0.05, self.may_pause / 3)
        self._beside(self._append, self._name("slow/"), self.random.randrange(16, 8 * BLOCK), pause)

    def _mapped(self) -> None:
        """Through a mapping, with pauses that may be longer than the time to settle: the share's file system tells."""
        size, pause = self.random.randrange(16, 5 * BLOCK), self.random.uniform(0, 2 * self.may_pause)
        self._beside(self.writers.mapped, self._name("mapped/"), size, pause)

    def _rewrite(self) -> None:
        """In this thread: no newer version of the name may come meanwhile."""
        if self.names:
            self.writers.rewrite(self.random.choice(self.names[-8:]))

    def _rename(self) -> None:
        old = self._name("renamed/").removesuffix(".bin")
        names = [f"{number}.bin" for number in range(self.random.randrange(1, 12))]
        self._beside(self.writers.renamed, old, f"{old} by now", names, self._arrive, self.random.random())

    def _arrive(self, name: str, size: int) -> None:
        """Move a file in whose name does not come again."""
        self._move_in(name, size, again=False)

    def _append(self, name: str, size: int, pause: float) -> None:
        path, target = f"{self.session}/{name}", self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb", buffering=0) as file:
            data = b"".join(pieces(path, 0, size))
            step = max(1, size // 12)
            for offset in range(0, size, step):
                if last := offset + step >= size:
                    version = self.ledger.finished(path, fingerprint(path, 0, size))
                file.write(data[offset : offset + step])
                began = time.monotonic()
                time.sleep(pause)
                if time.monotonic() - began > self.may_pause and not last:
                    self.ledger.paused(path, print_of(data[: offset + step]))
            self.ledger.counted["slow writers"] += 1
        self.ledger.landed(path, version)

    def _leave_alone(self) -> None:
        for name in LEFT_ALONE:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(name.encode())
            self.left_alone[name] = name.encode()

    def untouched(self) -> bool:
        """Tell whether the files that nobody may touch are as they were."""
        return all((self.folder / name).read_bytes() == data for name, data in self.left_alone.items())

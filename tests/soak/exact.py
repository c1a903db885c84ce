"""One session through kills, and then an account of every file: python -m tests.soak.exact --files 10000 --kills 10.

Exits with 1 when result, receipts, store, share and command do not all say exactly what has become of each file.
"""

import argparse
import json
import os
import random
import stat
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.command.calling import lines
from tests.endpoint.server import Endpoint
from tests.soak import troubles
from tests.soak.account import NO_FILE, Expected, Seen, differences, print_of, text
from tests.soak.content import BLOCK, pieces
from tests.soak.seen import command, look, names_in, status
from tests.support.cluster import cluster
from tests.support.programs import wait_for

SESSION = "exact"
FOLDERS = ("", "a/", "a/b c/", "ü/x.bin/")
BEFORE = 0.4  # of the files lie there at the start
AHEAD = 0.15  # of the files have arrived and are not in the store, at most
HANG = 300  # seconds; bounds a hang only


class Exact:
    """A session that has ended, and its programs. `files`: how many, troubles among them; `kills`: of each program."""

    def __init__(self, folder: Path, files: int, kills: int, seed: str, *, at_once: bool) -> None:
        """`at_once`: the causes for which the drain waits stay, and a stop at once ends it; else they are mended."""
        self.files = files - len(troubles.TROUBLES)
        self.kills = kills
        self.at_once = at_once
        self.random = random.Random(seed)
        self.expected = Expected(SESSION, "", drained=not at_once)
        self._sizes = random.Random(f"{seed}/sizes")
        self._arrived = 0
        self._looks: dict[str, os.stat_result] = {}
        self._stack = ExitStack()
        try:
            self.endpoint = self._stack.enter_context(Endpoint())
            self._refused = troubles.refuse(self.endpoint, SESSION)
            # As root every file can be read: take that from the shards, and from nobody else.
            under = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
            programs = cluster(
                folder, 2, self.endpoint.connection_string, under,
                block_size=BLOCK, memory=32 * BLOCK, settle_empty=1, on_conflict="refuse",
            )  # fmt: skip
            self.site = self._stack.enter_context(programs)
            self.folder = self.site.root / SESSION
            self._run()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all programs."""
        self._stack.close()

    def _run(self) -> None:
        self.folder.mkdir()
        for _ in range(int(self.files * BEFORE)):
            self._arrive()
        for trouble in troubles.TROUBLES:
            path = self.folder / trouble.path
            path.parent.mkdir(parents=True, exist_ok=True)
            trouble.make(path)
            self._looks[trouble.path] = path.lstat()
        self.expected.began = json.loads(command(self.site, "start", SESSION, "-e", ".bin", "--json").stdout)[
            "started_at"
        ]
        with ThreadPoolExecutor(1) as beside:
            producer = beside.submit(self._produce)
            for turn in range(1, self.kills):
                wait_for(lambda turn=turn: self._sent() >= self.files * turn // self.kills, "files to be sent", HANG)
                self._kill()
            producer.result()
        command(self.site, "stop", SESSION)
        self._kill()
        self._end()

    def _produce(self) -> None:
        """Let the other files arrive, not far ahead of what is sent, so that each kill falls into the work."""
        ahead = self.files * AHEAD
        while self._arrived < self.files:
            wait_for(lambda: self._arrived - self._sent() < ahead, "files to be sent", HANG)
            self._arrive()

    def _arrive(self) -> None:
        """Move a file into place: small, empty, or of several blocks."""
        path = f"{self._sizes.choice(FOLDERS)}{self._arrived:06}.bin"
        kinds = (0, self._sizes.randrange(1, 20_000), self._sizes.randrange(BLOCK, 4 * BLOCK))
        content = b"".join(pieces(path, 0, self._sizes.choices(kinds, (2, 96, 2))[0]))
        hidden = self.folder / ".arriving.bin"
        hidden.write_bytes(content)
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        self.expected.send(path, content, hidden.stat())
        hidden.rename(self.folder / path)
        self._arrived += 1

    def _sent(self) -> int:
        return len(self.endpoint.store.container("uploads"))

    def _kill(self) -> None:
        """Kill each program once, in any order, and start it again; wait until all answer."""
        programs = [self.site.router, *self.site.shards]
        self.random.shuffle(programs)
        for program in programs:
            time.sleep(self.random.uniform(0, 0.3))  # any instant will do
            program.kill()
            program.start()
        for program in programs:
            program.ready(timeout=HANG)

    def _end(self) -> None:
        """End the drain as the documents say: what it keeps, and what it waits for, is for a person."""
        sent, left = troubles.KEPT
        stay = {trouble.path for trouble in troubles.TROUBLES}
        self._stay(stay)
        kept = ("files", SESSION, "--state", "kept", "--json")
        wait_for(lambda: len(lines(command(self.site, *kept).stdout)) == len(troubles.KEPT), "both to be kept", HANG)
        self._rename(sent)
        self._stay(stay - {f"{sent}{troubles.COMPLETED}"})
        if self.at_once:
            command(self.site, "stop", SESSION, "--at-once")
        else:
            troubles.mend(self.endpoint, self._refused, SESSION, self.folder)
            httpx.post(
                f"{self.site.router.url}/v1/watch/retry", json={"session": SESSION}, timeout=60
            ).raise_for_status()
        assert f"{left}{troubles.COMPLETED}" in command(self.site, "wait", SESSION, code=1).stdout
        self._rename(left)
        wait_for(lambda: status(self.site, SESSION)["state"] == "ended", "the end", HANG, 0.2)
        for trouble in troubles.TROUBLES:
            self._expect(trouble)

    def _rename(self, kept: str) -> None:
        (self.folder / f"{kept}{troubles.COMPLETED}").rename(self.folder / kept)

    def _stay(self, paths: set[str]) -> None:
        """Wait until the session's folder has these files only, claimed or not."""

        def found() -> set[str]:
            return {name if name in paths else name.removesuffix(".processing") for name in names_in(self.folder)}

        wait_for(lambda: found() == paths, f"only {len(paths)} files to be left", HANG, 0.5)

    def _expect(self, trouble: troubles.Trouble) -> None:
        expected, path = self.expected, trouble.path.removesuffix(troubles.COMPLETED)
        if path == troubles.KEPT[0] or (trouble.holds and not self.at_once):
            expected.send(path, troubles.CONTENT, self._looks[trouble.path])
            return
        expected.left[path] = troubles.CONTENT if stat.S_ISREG(self._looks[trouble.path].st_mode) else NO_FILE
        if path == troubles.CONFLICT:
            expected.blobs[f"{SESSION}/{path}"] = print_of(troubles.EARLIER)
        if path == troubles.KEPT[1]:
            expected.reasons[path] = "before it was sent" if self.at_once else "when the session had drained"
        elif trouble.says:
            expected.reasons[text(path)] = trouble.says
            expected.failed += 1

    def look(self) -> Seen:
        """Ask everybody, and look at everything, once more."""
        if (shut := self.folder / troubles.SHUT).exists():
            shut.chmod(0o644)  # to be read here
        return look(self.site, self.endpoint.store, SESSION, self.expected.receipts)


def main() -> int:
    """Run it once, and name every difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.exact", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10, help="of each program")
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--at-once", action="store_true", help="end the drain by a stop at once, and mend no cause")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="exact-") as folder:
        it = Exact(Path(folder), given.files, given.kills, given.seed, at_once=given.at_once)
        try:
            found = differences(it.expected, it.look())
        finally:
            it.close()
    for line in found[:100]:
        print(f"WRONG: {line}")
    print(
        f"exact: seed {given.seed}: {len(it.expected.sent)} files sent, {len(it.expected.left)} left, {3 * given.kills} kills, "
        f"{'stopped at once' if given.at_once else 'drained'}, {time.monotonic() - began:.0f} s: "
        f"{f'{len(found)} DIFFERENCES' if found else 'the result is exact'}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

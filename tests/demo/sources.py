"""The files that the demo puts on the share; their digests are kept here, as the share forgets the files."""

import os
import random
from hashlib import md5
from pathlib import Path

KIB, MIB = 1024, 1024 * 1024


class Sources:
    """The files to write. `size` counts their bytes; `digests` holds the MD5 of the written files by path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        chance = random.Random(1)
        small = [(f"camera-{n % 4}/day-{n % 7}/frame-{n:03}.bin", chance.randint(1, 256 * KIB)) for n in range(300)]
        middle = [(f"scans/scan-{n:02}.h5", 5 * MIB) for n in range(12)]
        large = [(f"recording-{n}.bin", 64 * MIB) for n in range(4)]
        self.files = small + middle + large
        chance.shuffle(self.files)
        self.size = sum(size for _, size in self.files)
        self.digests: dict[str, bytes] = {}

    def write(self, first: int, last: int) -> None:
        """Write files number `first` up to `last` as a producer should: under another name, then moved into place."""
        for path, size in self.files[first:last]:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f"{target.name}.part")
            digest = md5(usedforsecurity=False)
            with unfinished.open("wb") as file:
                for start in range(0, size, MIB):
                    data = os.urandom(min(MIB, size - start))
                    digest.update(data)
                    file.write(data)
            self.digests[path] = digest.digest()
            unfinished.rename(target)

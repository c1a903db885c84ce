"""A blob store that remembers every commit, so that no half-written content goes unnoticed."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.endpoint.store import Blob, Block, Store
from uploader.blob.checksum import crc64

Content = tuple[tuple[int, int], ...]  # length and CRC64 of each block, both checked by the endpoint


class Ledger(Store):
    """A store that keeps checksums only. `commits` maps a blob's name to the contents committed under it, in order.

    Blocks are held while `go_on` is not set.
    """

    def __init__(self) -> None:
        super().__init__(keep_bytes=False)
        self.commits: dict[str, list[Content]] = {}
        self.begun: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()

    def put_block(self, container: str, name: str, block: Block) -> None:
        self.begun.add(name)
        self.go_on.wait()
        super().put_block(container, name, block)

    def put_blob(self, container: str, name: str, block: Block, *rest: Any, **options: Any) -> Blob:
        return self._note(name, super().put_blob(container, name, block, *rest, **options))

    def put_block_list(self, container: str, name: str, *rest: Any, **options: Any) -> Blob:
        return self._note(name, super().put_block_list(container, name, *rest, **options))

    def _note(self, name: str, blob: Blob) -> Blob:
        content = tuple((block.length, block.crc64) for block in blob.committed or [])
        self.commits.setdefault(name, []).append(content)
        return blob


def holds(content: Content, file: Path) -> bool:
    """Tell whether committed blocks are exactly this file."""
    with file.open("rb") as source:
        same = all(crc64(source.read(length)) == crc for length, crc in content)
        return same and not source.read(1)


def lengths(commits: Mapping[str, list[Content]], name: str) -> list[int]:
    """Return the length of each commit of a blob."""
    return [sum(length for length, _ in content) for content in commits.get(name, [])]

"""A store in memory that tells the machine what is committed, and what becomes of what was there."""

from collections.abc import Callable

from tests.invariants.bed import Hooked
from uploader.blob.store import Label, Meter


class Checked(Hooked):
    """Calls `took(name, content, lost)` as part of each write, and has hooks after the effect too.

    `lost`: other content that was replaced, and is in no snapshot (I12).
    """

    def __init__(self, took: Callable[[str, bytes, bytes | None], None]) -> None:
        super().__init__()
        self.took = took

    def put(self, name: str, data: bytes, label: Label, etag: str | None, meter: Meter | None = None) -> str:
        before = self.held(name)
        now = super().put(name, data, label, etag, meter)
        self._tell(name, before)
        self._call("after put", name)
        return now

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        before = self.held(name)
        now = super().commit(name, block_ids, label, etag)
        self._tell(name, before)
        self._call("after commit", name)
        return now

    def held(self, name: str) -> bytes | None:
        """Return a blob's content, None when there is no blob."""
        there = self._blobs.get(name)
        return there.content if there and there.parts is not None else None

    def _tell(self, name: str, before: bytes | None) -> None:
        content = self.content(name)
        gone = before is not None and not content.startswith(before) and before not in self.kept(name).values()
        self.took(name, content, before if gone else None)

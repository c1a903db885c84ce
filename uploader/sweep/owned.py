"""What the sweeper is told of the sessions of this shard, and what it asks them to do."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from uploader.backlog.inventory import Inventory
from uploader.session import Session, State
from uploader.sweep.seal import Sealed


@dataclass(frozen=True, slots=True)
class Owned:
    """A session of this shard, as it is now."""

    session: Session
    files: Inventory

    @property
    def name(self) -> str:
        """The session's name."""
        return self.session.name

    @property
    def stopped(self) -> bool:
        """Whether it takes no files any more."""
        return self.session.state is State.STOPPED


class Sessions(Protocol):
    """What the sweeper asks of the sessions. Every method may raise OSError."""

    def owned(self) -> dict[str, Owned]:
        """Return the sessions of this shard by name, stopped ones too. From memory."""

    def swept(self, name: str, sealed: Sealed) -> None:
        """End a stopped session of which nothing is left: write its result, remove its journals and its record."""

    def reopen(self, name: str) -> AbstractContextManager[Inventory | None]:
        """Let a stopped session take a file back: yield the inventory of the run that does, None when there is none.

        A drained session drains again: its record says so on disk before the caller renames the file, and its
        discovery starts afterwards. A session that was stopped at once stays stopped.
        """

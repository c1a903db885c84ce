"""What is known of a session's files at one instant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shown:
    """One file that is under way, has failed or is kept. Sizes in bytes."""

    path: str
    size: int
    uploaded: int = 0
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts, and a few files. `rate`: bytes per second."""

    waiting: int
    uploading: int
    completed: int
    failed: int
    bytes_uploaded: int
    bytes_total: int
    rate: float
    current: tuple[Shown, ...]
    last_error: str | None

"""What is known of a session's files at one instant."""

from dataclasses import dataclass

from uploader.web.openapi.models import Current, LastError


@dataclass(slots=True)
class Snapshot:
    """The counts of files and bytes, and a few of the files. `rate`: bytes per second."""

    waiting: int
    uploading: int
    completed: int
    failed: int
    replaced: int
    bytes_uploaded: int
    bytes_total: int
    rate: float
    current: list[Current]
    last_error: LastError | None

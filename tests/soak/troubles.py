"""The files of a session that fail, or stay, each in a way of its own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.endpoint.faults import Planned, Refuse
from tests.endpoint.operations import checksum
from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.endpoint.store import Block
from tests.soak.content import pieces

CONTENT = b"".join(pieces("trouble", 0, 3000))
EARLIER = b"of another source"  # what the store has under the name of one of them
CONFLICT, REFUSED, NO_NAME, SHUT = "conflict.bin", "refused.bin", "no-name.bin", "shut.bin"
COMPLETED = ".completed"
KEPT = ("kept-and-sent.bin", "kept-and-left.bin")  # with COMPLETED, which somebody else has put there


def write(path: Path) -> None:
    """Move a file of CONTENT into place."""
    hidden = path.with_name(".arriving")
    hidden.write_bytes(CONTENT)
    hidden.rename(path)


def _shut(path: Path) -> None:
    write(path)
    path.chmod(0)


def _in_its_way(path: Path) -> None:
    path.with_name(f"{path.name}{COMPLETED}").mkdir()
    write(path)


@dataclass(frozen=True)
class Trouble:
    """`says`: a part of the reason in the session's result; "": no result names it.

    `holds`: a drain waits for it until its cause is mended.
    """

    path: str
    says: str = ""
    make: Callable[[Path], object] = write
    holds: bool = False


TROUBLES = [
    Trouble(SHUT, "Permission denied", _shut, holds=True),
    Trouble(CONFLICT, "refused", holds=True),
    Trouble(REFUSED, "403", holds=True),
    Trouble(NO_NAME, "InvalidUri"),
    Trouble("link.bin", "symbolic link", lambda path: path.symlink_to(REFUSED)),
    Trouble("pipe.bin", "not a regular file", os.mkfifo),
    Trouble("RUN-7.COMPLETED", "other letters"),
    Trouble("run-8.bin.Processing", "other letters"),
    Trouble("twice.bin.processing.processing", "twice"),
    Trouble("way.bin", "way.bin.completed is in its way", _in_its_way),
    Trouble("n" * 241 + ".bin", "no room for .processing"),
    Trouble("/".join(["long" * 60] * 5) + ".bin", "characters"),
    Trouble("d/" * 253 + "x.bin", "parts"),
    Trouble("dot./x.bin", "ends with a dot"),
    Trouble(os.fsdecode(b"\xff.bin"), "not UTF-8"),
    *(Trouble(f"{path}{COMPLETED}") for path in KEPT),
    Trouble("coming.bin.part"),
    Trouble(".hidden.bin"),
    Trouble("notes.txt"),
]


def refuse(endpoint: Endpoint, session: str) -> Planned:
    """Let the store have other content under one name, and say that it can have no blob of another.

    Returns the fault by which it refuses a third.
    """
    endpoint.store.create("uploads")
    block = Block("", len(EARLIER), checksum(EARLIER), EARLIER)
    endpoint.store.put_blob("uploads", f"{session}/{CONFLICT}", block, {}, {})

    def always(status: int, code: str, path: str) -> Planned:
        return endpoint.faults.add(
            Refuse(status, code), Operation.PUT_BLOB, times=10**9, when=lambda it: it.blob == f"{session}/{path}"
        )

    always(400, "InvalidUri", NO_NAME)
    return always(403, "AuthorizationPermissionMismatch", REFUSED)


def mend(endpoint: Endpoint, refused: Planned, session: str, folder: Path) -> None:
    """Do away with the causes for which a drain waits, as a person would."""
    (folder / SHUT).chmod(0o644)
    endpoint.store.delete("uploads", f"{session}/{CONFLICT}")
    refused.times = 0

"""One request as the endpoint sees it, and the log of all requests, in which tests count."""

import threading
import time
from dataclasses import dataclass, field
from email.message import Message
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.endpoint.store import Refused


class Operation(StrEnum):
    """The calls that the endpoint knows, by the service's names."""

    CREATE_CONTAINER = "Create Container"
    GET_CONTAINER = "Get Container Properties"
    DELETE_CONTAINER = "Delete Container"
    PUT_BLOB = "Put Blob"
    PUT_BLOCK = "Put Block"
    PUT_BLOCK_LIST = "Put Block List"
    GET_BLOCK_LIST = "Get Block List"
    GET_BLOB = "Get Blob"
    HEAD_BLOB = "Get Blob Properties"
    DELETE_BLOB = "Delete Blob"
    SET_METADATA = "Set Blob Metadata"
    SNAPSHOT_BLOB = "Snapshot Blob"
    LIST_BLOBS = "List Blobs"


CONTAINER_CALLS = {
    ("PUT", ""): Operation.CREATE_CONTAINER,
    ("GET", ""): Operation.GET_CONTAINER,
    ("HEAD", ""): Operation.GET_CONTAINER,
    ("GET", "list"): Operation.LIST_BLOBS,
    ("DELETE", ""): Operation.DELETE_CONTAINER,
}
BLOB_CALLS = {
    ("PUT", ""): Operation.PUT_BLOB,
    ("PUT", "block"): Operation.PUT_BLOCK,
    ("PUT", "blocklist"): Operation.PUT_BLOCK_LIST,
    ("PUT", "metadata"): Operation.SET_METADATA,
    ("PUT", "snapshot"): Operation.SNAPSHOT_BLOB,
    ("GET", "blocklist"): Operation.GET_BLOCK_LIST,
    ("GET", ""): Operation.GET_BLOB,
    ("HEAD", ""): Operation.HEAD_BLOB,
    ("DELETE", ""): Operation.DELETE_BLOB,
}


@dataclass
class Request:
    """One request; `received` counts the bytes of its body that came, `status` is 0 until it is answered."""

    operation: Operation
    container: str
    blob: str
    query: dict[str, str]
    headers: Message
    length: int
    started: float = field(default_factory=time.monotonic)
    received: int = 0
    body: bytes | bytearray = b""
    status: int = 0
    ended: float = 0.0

    @property
    def block(self) -> str:
        """The block id, base64 as sent, or empty."""
        return self.query.get("blockid", "")


def parse(method: str, target: str, headers: Message) -> Request:
    """Read a request line and its headers.

    Raises:
        Refused: a call that the endpoint does not know.
    """
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    _, _account, container, *rest = [*url.path.split("/", 3), "", ""][:4]
    blob = unquote(rest[0])
    calls = BLOB_CALLS if blob else CONTAINER_CALLS
    operation = calls.get((method, query.get("comp", "")))
    if operation is None or (not blob and query.get("restype") != "container"):
        raise Refused(400, "UnsupportedHttpVerb", f"this endpoint does not know {method} {target}")
    return Request(operation, unquote(container), blob, query, headers, int(headers.get("Content-Length") or 0))


class Log:
    """The requests in the order in which their headers came."""

    def __init__(self) -> None:
        self._entries: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Append a request."""
        with self._lock:
            self._entries.append(request)

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._entries.clear()

    def of(self, operation: Operation, blob: str | None = None) -> list[Request]:
        """Return the requests of this operation, of one blob or of all."""
        with self._lock:
            entries = list(self._entries)
        return [entry for entry in entries if entry.operation == operation and blob in {None, entry.blob}]

    def received(self, operation: Operation, blob: str | None = None) -> int:
        """Return the bytes of bodies that came with this operation, those of broken requests included."""
        return sum(entry.received for entry in self.of(operation, blob))

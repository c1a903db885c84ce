"""The adapter for tests: settings by keyword, and connections that are closed at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from unittest import mock

from tests.endpoint.store import Blob, Store
from uploader.blob.azure import AzureBlobs
from uploader.blob.transport import ThreadTransport
from uploader.settings import Settings

CONTAINER = "uploads"


class ServiceStore(Store):
    """The endpoint's store; as in the service, a block list names no block for the content of a Put Blob."""

    def block_list(self, container: str, name: str) -> Blob:
        found = super().block_list(container, name)
        named = None if found.committed is None else [block for block in found.committed if block.name]
        return replace(found, committed=named)


@contextmanager
def azure_blobs(connection: str, root: Path, timeout: float = 60, **settings: Any) -> Iterator[AzureBlobs]:
    """Give a store whose container exists; `root` may be any folder."""
    made: list[HTTPConnection] = []
    make = ThreadTransport._made

    def remembered(transport: ThreadTransport, scheme: str, netloc: str) -> HTTPConnection:
        made.append(make(transport, scheme, netloc))
        return made[-1]

    required: dict[str, Any] = {"ordinal": 0, "root": root, "container": CONTAINER}
    required["AZURE_STORAGE_CONNECTION_STRING"] = connection
    # The transport keeps its connections until the process ends, and a test's process goes on.
    with mock.patch.object(ThreadTransport, "_made", remembered):
        try:
            store = AzureBlobs(Settings(**required, **settings), timeout)
            store.ensure_container()
            yield store
        finally:
            for connection_made in made:
                connection_made.close()

"""Measures the requests to the store: how long each try took, and which were not carried out."""

import re
import time
from typing import Any

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy
from azure.core.rest import HttpRequest, HttpResponse

from uploader.blob.errors import code_of
from uploader.telemetry import instruments

# By method and `comp`: the names of learn.microsoft.com/rest/api/storageservices/operations-on-blobs
OPERATIONS = {
    ("PUT", ""): "put_blob",
    ("PUT", "block"): "put_block",
    ("PUT", "blocklist"): "put_block_list",
    ("PUT", "metadata"): "set_blob_metadata",
    ("PUT", "snapshot"): "snapshot_blob",
    ("GET", ""): "get_blob",
    ("GET", "blocklist"): "get_block_list",
    ("GET", "list"): "list_blobs",
    ("HEAD", ""): "get_blob_properties",
    ("DELETE", ""): "delete_blob",
}
ASK = "ask"  # whether the store can be reached, and what that takes
OTHER = "other"  # an operation or a code that is none of the service's
ABSENT = frozenset({"BlobNotFound"})  # an answer, no refusal
_COMP = re.compile(r"[?&]comp=(\w+)")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9]{1,63}")  # what a proxy answers may be anything


class Measured(HTTPPolicy[HttpRequest, HttpResponse]):
    """The last policy before the transport: it sees every try."""

    def __init__(self, always: str = "", expected: frozenset[str] = ABSENT) -> None:
        """Take the codes that are answers, no refusals. `always`: the operation's name, whatever the request."""
        super().__init__()
        self._always = always
        self._expected = expected

    def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, HttpResponse]:
        """Hand the request on. Raises what the transport raises."""
        what = self._always or operation(request.http_request.method, request.http_request.url)
        began = time.monotonic()
        try:
            response: PipelineResponse[Any, Any] = self.next.send(request)
        except AzureError:
            instruments.refused(what, instruments.NO_ANSWER, "")
            raise
        instruments.answered(what, time.monotonic() - began)
        reply = response.http_response
        if reply.status_code >= 300 and (code := code_of(reply)) not in self._expected:
            instruments.refused(what, reply.status_code, code if not code or _CODE.fullmatch(code) else OTHER)
        return response


def operation(method: str, url: str) -> str:
    """Return the name of the operation."""
    comp = _COMP.search(url)
    return OPERATIONS.get((method, comp[1] if comp else ""), OTHER)

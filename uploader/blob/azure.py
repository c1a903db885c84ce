"""Azure Blob Storage behind the engine's seam: it only translates. No other folder imports azure."""

import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import quote

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline import Pipeline, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, SansIOHTTPPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import CredentialUnavailableError, DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from uploader.blob import replies
from uploader.blob.checksum import Content, crc64, crc64_header, md5_header
from uploader.blob.errors import code_of, translated
from uploader.blob.rate_limit import RateLimit
from uploader.blob.store import Blocks, Label, Stored
from uploader.blob.transport import ThreadTransport
from uploader.environment import PREFIX
from uploader.errors import BadConfiguration, StoreAway, StoreRefused
from uploader.settings import Settings

API_VERSION = "2025-05-05"
LONGEST_WAIT = 60.0  # seconds between two tries, even where Retry-After asks for more
SCOPE = "https://storage.azure.com/.default"
for _noisy in ("azure.core.pipeline.policies.http_logging_policy", "azure.identity"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)

# What the service answers when it has done what was asked; a proxy's redirect or greeting is no confirmation.
_DONE = {"PUT": 201, "DELETE": 202, "HEAD": 200, "GET": 200}

# The properties of a blob beside its metadata, and the header that sets each.
_PROPERTIES = {
    "Content-Type": "x-ms-blob-content-type",
    "Content-MD5": "x-ms-blob-content-md5",
    "Content-Encoding": "x-ms-blob-content-encoding",
    "Content-Language": "x-ms-blob-content-language",
    "Content-Disposition": "x-ms-blob-content-disposition",
    "Cache-Control": "x-ms-blob-cache-control",
}


class Stamp(SansIOHTTPPolicy[HttpRequest, HttpResponse]):
    """Sets the date and the version of the service on each try of a request."""

    def on_request(self, request: PipelineRequest[HttpRequest]) -> None:
        """Set both headers."""
        request.http_request.headers["x-ms-date"] = formatdate(usegmt=True)
        request.http_request.headers["x-ms-version"] = API_VERSION


class Retries(RetryPolicy[HttpRequest, HttpResponse]):
    """Up to four tries, seconds apart or as Retry-After asks (at most 60 s). Longer outages: the file's backoff."""

    def __init__(self) -> None:
        super().__init__(retry_total=3, retry_backoff_factor=0.5, retry_backoff_max=10)

    def get_retry_after(self, response: PipelineResponse[Any, Any]) -> float | None:
        """Return the seconds that Retry-After asks for, None when it cannot be understood."""
        try:
            return min(super().get_retry_after(response) or 0.0, LONGEST_WAIT) or None
        except (ValueError, OverflowError):
            return None


class AzureBlobs:
    """One container. One client and one credential for all threads.

    Calls about blobs go through a pipeline of three policies: the SDK's client costs four times as much for a small
    file, and serves only calls about the container. Both share the transport, and azure-core's retries: these obey
    Retry-After and repeat 429, which the storage SDK's own do not.
    """

    def __init__(self, settings: Settings, timeout: float = 60) -> None:
        """`timeout`: seconds for one send or reply. Raises BadConfiguration when the credentials cannot be made."""
        self.container = settings.container
        self.checksum = settings.checksum
        transport = ThreadTransport(timeout, RateLimit(settings.max_upload_rate))
        options: dict[str, Any] = {"transport": transport, "retry_policy": Retries()}
        try:
            if settings.connection_string:
                text = settings.connection_string.get_secret_value()
                service = BlobServiceClient.from_connection_string(text, **options)
                sign = service.credential
            else:
                # A missing or misspelt AZURE_TOKEN_CREDENTIALS is an error at once, not a chain that fails after 30 s.
                credential = DefaultAzureCredential(require_envvar=True)
                service = BlobServiceClient(settings.account_url or "", credential, **options)
                sign = BearerTokenCredentialPolicy(credential, SCOPE)
        except (ValueError, CredentialUnavailableError, KeyError) as error:
            variable = "AZURE_STORAGE_CONNECTION_STRING" if settings.connection_string else f"{PREFIX}ACCOUNT_URL"
            raise BadConfiguration(f"{variable}: its credentials are not usable: {error}") from None
        self._container = service.get_container_client(settings.container)
        self._url, _, self._token = self._container.url.partition("?")
        self.account = self._url.removesuffix(f"/{settings.container}")
        policies = [Retries(), Stamp(), *([sign] if sign else [])]
        self._pipeline: Pipeline[HttpRequest, HttpResponse] = Pipeline(transport, policies)

    def ensure_container(self) -> None:
        """Create the container unless it exists (A8). Raises BadConfiguration or StoreAway."""
        try:
            if self._container.exists():
                return
            self._container.create_container()
        except AzureError as error:
            if code_of(error) == "ContainerAlreadyExists":
                return
            if isinstance(error, ClientAuthenticationError) and error.response is None:  # not sent at all
                reason = " ".join(error.message.split())
                raise BadConfiguration(f"the credentials cannot be used: {reason}") from error
            said = translated(error)
            if isinstance(said, StoreAway):
                raise said from error
            what = f"the container {self.container!r} cannot be reached or created: {said}"
            raise BadConfiguration(what) from error

    def head(self, name: str) -> Stored | None:
        """Describe a committed blob."""
        reply = self._send("HEAD", name, "", b"", {})
        return replies.stored(reply.headers) if reply else None

    def put(self, name: str, data: bytes, label: Label, etag: str | None) -> str:
        """Write a whole blob."""
        headers = {"x-ms-blob-type": "BlockBlob"} | _labelled(label) | _condition(etag)
        # Put Blob takes one checksum, and the MD5 of the whole file is one. The service compares x-ms-blob-content-md5
        # with the body, or Content-MD5 where the first is missing; some endpoints verify only Content-MD5.
        headers |= {"Content-MD5": headers["x-ms-blob-content-md5"]} if label.md5 else self._verified(data, label.crc64)
        reply = self._send("PUT", name, "", data, headers)
        return replies.etag(cast("HttpResponse", reply).headers)

    def blocks(self, name: str) -> Blocks:
        """List the blob's blocks."""
        reply = self._send("GET", name, "comp=blocklist&blocklisttype=all", b"", {})
        if reply is None:
            return Blocks({}, [], None)
        there = replies.listed(reply.content)
        if there.committed:
            return replace(there, etag=replies.etag(reply.headers))
        stored = self.head(name)  # a blob made by Put Blob, or none: an emulator gives an etag for none too
        return replace(there, etag=stored.etag if stored else None)

    def stage(self, name: str, block_id: str, data: memoryview, crc: int) -> None:
        """Write one block."""
        query = f"comp=block&blockid={quote(block_id, safe='')}"
        self._send("PUT", name, query, data, self._verified(data, crc))

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        """Make the blob of these blocks."""
        return replies.etag(self._commit(name, block_ids, _labelled(label) | _condition(etag)).headers)

    def relabel(self, name: str, label: Label, etag: str) -> str:
        """Replace the blob's metadata."""
        reply = self._send("PUT", name, "comp=metadata", b"", _metadata(label) | _condition(etag), done=200)
        return replies.etag(cast("HttpResponse", reply).headers)  # a greeting on the way has none

    def discard(self, name: str, blocks: Blocks) -> None:
        """Drop the uncommitted blocks: only a commit does that, so the blob is committed again as it is.

        The commit names committed blocks only: an uncommitted block may have the same id and other content.
        """
        if blocks.etag is None:
            empty = self._commit(name, [], _condition(None))
            self._send("DELETE", name, "", b"", _condition(replies.etag(empty.headers)))  # unless changed since
            return
        found = self._send("HEAD", name, "", b"", {})
        if found is None or (not blocks.committed and replies.length(found.headers)):
            raise StoreRefused("too many uncommitted blocks beside a blob that has no blocks; delete the blob")
        kept = {key: value for key, value in found.headers.items() if key.lower().startswith("x-ms-meta-")}
        for plain, header in _PROPERTIES.items():
            kept |= {header: found.headers[plain]} if plain in found.headers else {}
        self._commit(name, blocks.committed, kept | _condition(blocks.etag), "Committed")

    def _commit(self, name: str, block_ids: list[str], headers: dict[str, str], source: str = "Latest") -> HttpResponse:
        listed = "".join(f"<{source}>{block_id}</{source}>" for block_id in block_ids)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        reply = self._send("PUT", name, "comp=blocklist", body, headers | self._verified(body, crc64(body)))
        return cast("HttpResponse", reply)  # None only answers GET and HEAD

    def _verified(self, data: Content, crc: int) -> dict[str, str]:
        """Return the header with the checksum that the service compares with the body's."""
        if self.checksum == "md5":
            return {"Content-MD5": md5_header(data)}
        return {"x-ms-content-crc64": crc64_header(crc)}

    def _send(
        self, method: str, name: str, query: str, data: Content, headers: dict[str, str], done: int | None = None
    ) -> HttpResponse | None:
        """Return the reply, None when there is no such blob. Raises StoreError."""
        query = "&".join(part for part in (query, self._token) if part)
        url = f"{self._url}/{quote(name, safe='~/')}" + (f"?{query}" if query else "")
        if method == "PUT":
            # Without a length http.client would send the pieces of a large body chunked.
            headers |= {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
        with self._errors():
            request = HttpRequest(method, url, headers=headers, content=cast("bytes", data) or None)
            reply = self._pipeline.run(request).http_response
            if reply.status_code == (done or _DONE[method]):
                return reply
            if method == "PUT" or reply.headers.get("x-ms-error-code") != "BlobNotFound":
                raise HttpResponseError(response=reply)
        return None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except AzureError as error:
            if code_of(error) == "ContainerNotFound":
                self.ensure_container()  # deleted while we run: created again, or the process ends (A8)
            raise translated(error) from error


def _labelled(label: Label) -> dict[str, str]:
    headers = _metadata(label) | {"x-ms-blob-content-type": label.content_type}
    if label.md5:
        headers["x-ms-blob-content-md5"] = b64encode(label.md5).decode()
    return headers


def _metadata(label: Label) -> dict[str, str]:
    return {f"x-ms-meta-{key}": value for key, value in label.metadata().items()}


def _condition(etag: str | None) -> dict[str, str]:
    return {"If-None-Match": "*"} if etag is None else {"If-Match": etag}

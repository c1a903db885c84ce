"""Azure Blob Storage behind the engine's seam: it only translates. No other folder imports azure."""

import logging
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from secrets import token_hex
from typing import Any, cast
from urllib.parse import quote

from azure.core.exceptions import AzureError
from azure.core.pipeline import Pipeline, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, SansIOHTTPPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.storage.blob import BlobServiceClient

from uploader.blob import replies
from uploader.blob.account import VARIABLE, connection_string
from uploader.blob.checksum import Content, crc64, crc64_header, md5_header
from uploader.blob.errors import code_of, refused, translated
from uploader.blob.identity import Credential
from uploader.blob.measured import ABSENT, ASK, Measured
from uploader.blob.rate_limit import RateLimit
from uploader.blob.reach import Reach
from uploader.blob.store import Blocks, Label, Meter, Stored
from uploader.blob.transport import ThreadTransport
from uploader.errors import BadConfiguration, ListRefused, Overtaken, StoreAway, StoreRefused
from uploader.settings import StoreSettings

API_VERSION = "2025-05-05"
LONGEST_WAIT = 60.0  # seconds between two tries, even where Retry-After asks for more
SCOPE = "https://storage.azure.com/.default"
PATIENCE = 10.0  # seconds for each send and reply while we only ask whether the store can be reached
OURS = ".nfs-watch"  # below the prefix: no file may have a name that begins so
PAGE = 1000  # blobs in one page of a list: about 6 MiB while it is read; the service would send 5,000
NEVER = '"0x0"'  # no blob has this ETag: a write under this condition changes nothing
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)

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


Chain = Pipeline[HttpRequest, HttpResponse]


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

    All calls go through a pipeline of three policies: the SDK's client costs four times as much for a small file. The
    retries are azure-core's: these obey Retry-After and repeat 429, which the storage SDK's own do not.
    """

    def __init__(self, settings: StoreSettings, timeout: float = 60, *, create: bool = True) -> None:
        """`timeout`: seconds for one send or reply; `create`: a container that is missing is made.

        Asks nobody. Raises BadConfiguration when it cannot ask.
        """
        self._may_create = create
        self.container = settings.container
        self.checksum = settings.checksum
        # No other tool has a blob of this name: the answer about that one would be taken for the container's.
        self._nobodys = f"{settings.blob_prefix}{OURS}-{token_hex(8)}"
        service, sign = _account(settings)
        self._url, _, self._token = service.get_container_client(settings.container).url.partition("?")
        self.account = self._url.removesuffix(f"/{settings.container}")
        transport = ThreadTransport(timeout, RateLimit(settings.max_upload_rate))
        self._pipeline = _pipeline(transport, Retries(), Stamp(), sign(), Measured())
        # A new connection for each question: that an old one is broken tells nothing of the store.
        asking = ThreadTransport(min(timeout, PATIENCE), RateLimit(0), idle=0)
        self._asking = _pipeline(asking, Stamp(), sign(), Measured(ASK, ABSENT | {"ConditionNotMet"}))
        self.reach = Reach(self.ensure_container)

    def ensure_container(self) -> None:
        """Create the container where it is missing (A8), and ask whether it may be read and written. Without retries.

        No permission is asked for that uploading does not need: a signature for one container may never ask about the
        container itself. Raises BadConfiguration when the answer is no, StoreAway when there is none.
        """
        read, write = {"x-ms-range": "bytes=0-0"}, {"If-Match": NEVER}  # of a blob that is not there
        for method, query, headers in (("GET", "", read), ("PUT", "comp=metadata", write)):
            reply = self._asked(method, query, headers)
            if code_of(reply) == "ContainerNotFound":
                self._create()
                reply = self._asked(method, query, headers)
            if code_of(reply) in {"BlobNotFound", "ConditionNotMet"}:
                continue
            said = refused(reply)
            if isinstance(said, StoreAway):
                raise said
            raise BadConfiguration(f"the container {self.container!r} cannot be used: {said}")

    def _asked(self, method: str, query: str, headers: dict[str, str]) -> HttpResponse:
        """Ask without retries. Raises BadConfiguration, StoreAway."""
        try:
            return self._reply(self._asking, method, self._address(self._nobodys, query), b"", headers)
        except AzureError as error:
            said = translated(error)
        except StoreRefused as error:  # of the identity service
            said = error
        if isinstance(said, StoreAway):
            raise said
        raise BadConfiguration(str(said))

    def _create(self) -> None:
        """Create the container. Raises BadConfiguration when it may not be created, StoreAway."""
        if not self._may_create:
            raise BadConfiguration(f"the container {self.container!r} does not exist")
        query = "&".join(part for part in ("restype=container", self._token) if part)
        try:
            reply = self._reply(self._asking, "PUT", f"{self._url}?{query}", b"", {})
        except AzureError as error:
            raise translated(error) from error
        if reply.status_code == 201 or code_of(reply) == "ContainerAlreadyExists":
            return
        said = refused(reply)
        if isinstance(said, StoreAway):
            raise said
        what = f"the container {self.container!r} does not exist and may not be created: create it"
        raise BadConfiguration(f"{what}, or allow that; {said}")

    def head(self, name: str, snapshot: str = "") -> Stored | None:
        """Describe a committed blob, or a snapshot of it."""
        if snapshot and not replies.SNAPSHOT.fullmatch(snapshot):
            return None  # the service would refuse the question
        query = f"snapshot={quote(snapshot, safe='')}" if snapshot else ""
        reply = self._send("HEAD", name, query, b"", {})
        return replies.stored(reply.headers) if reply else None

    def part(self, name: str, first: int, size: int, etag: str) -> bytes:
        """Return `size` bytes, all of which it has, of the blob of this etag, from byte `first` on."""
        asked = {"x-ms-range": f"bytes={first}-{first + size - 1}", "If-Match": etag}
        reply = self._send("GET", name, "", b"", asked, done=206)
        if reply is None or len(reply.content) != size:
            raise StoreRefused(f"{name} was deleted meanwhile, or the store did not send what it has")
        return reply.content

    def put(self, name: str, data: bytes, label: Label, etag: str | None, meter: Meter | None = None) -> str:
        """Write a whole blob."""
        headers = {"x-ms-blob-type": "BlockBlob"} | _labelled(label) | _condition(etag)
        # Put Blob takes one checksum, and the MD5 of the whole file is one. The service compares x-ms-blob-content-md5
        # with the body, or Content-MD5 where the first is missing; some endpoints verify only Content-MD5.
        headers |= {"Content-MD5": headers["x-ms-blob-content-md5"]} if label.md5 else self._verified(data, label.crc64)
        reply = self._send("PUT", name, "", data, headers, meter=meter)
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

    def stage(self, name: str, block_id: str, data: memoryview, crc: int, meter: Meter | None = None) -> None:
        """Write one block."""
        query = f"comp=block&blockid={quote(block_id, safe='')}"
        self._send("PUT", name, query, data, self._verified(data, crc), meter=meter)

    def commit(self, name: str, block_ids: list[str], label: Label, etag: str | None) -> str:
        """Make the blob of these blocks."""
        return replies.etag(self._commit(name, block_ids, _labelled(label) | _condition(etag)).headers)

    def relabel(self, name: str, label: Label, etag: str) -> str:
        """Replace the blob's metadata."""
        reply = self._send("PUT", name, "comp=metadata", b"", _metadata(label) | _condition(etag), done=200)
        return replies.etag(cast("HttpResponse", reply).headers)  # a greeting on the way has none

    def annotate(self, name: str, metadata: Mapping[str, str], etag: str) -> str:
        """Replace the blob's metadata; return the new etag."""
        said = {f"x-ms-meta-{key}": value for key, value in metadata.items()}
        reply = self._send("PUT", name, "comp=metadata", b"", said | _condition(etag), done=200)
        return replies.etag(cast("HttpResponse", reply).headers)

    def snapshot(self, name: str, etag: str) -> str:
        """Take a snapshot, in one try: whether a try without a reply has made one is not known."""
        try:
            reply = self._send("PUT", name, "comp=snapshot", b"", _condition(etag), retry_total=0)
        except StoreRefused as error:
            if "FeatureNotSupported" in str(error):
                raise StoreRefused("the account knows no snapshots (FeatureNotSupported)") from error
            raise
        return replies.snapshot_id(cast("HttpResponse", reply).headers)

    def snapshots(self, name: str) -> dict[str, Stored]:
        """List the snapshots of the blob. Their list is the container's, which some signatures may not read."""
        found: dict[str, Stored] = {}
        try:
            for page in self._pages("snapshots%2Cmetadata", name):
                for blob, snapshot, stored in page:
                    if blob != name:  # the list is in the order of the names
                        return found
                    found |= {snapshot: stored} if snapshot else {}
        except ListRefused:
            return {}
        return found

    def below(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        """List the blobs whose names begin so. Raises ListRefused."""
        for page in self._pages("metadata", prefix):
            yield from ((blob, stored) for blob, snapshot, stored in page if not snapshot)

    def _pages(self, include: str, prefix: str) -> Iterator[Iterator[replies.Listed]]:
        query = f"restype=container&comp=list&maxresults={PAGE}&include={include}&prefix={quote(prefix, safe='')}"
        marker = ""
        while True:
            reply = self._send("GET", "", query + marker, b"", {}, denied=True)
            if reply is None:
                raise ListRefused("the credentials may not list the container's blobs")
            page, more = replies.blobs(reply.content)
            yield page
            if not more:
                return
            marker = f"&marker={quote(more, safe='')}"

    def discard(self, name: str, blocks: Blocks) -> None:
        """Drop the uncommitted blocks: only a new write of the blob does that, so the blob is written again as it is.

        A commit names committed blocks only: an uncommitted block may have the same id and other content. The content
        of a Put Blob is no block, and is sent again.
        """
        if blocks.etag is None:
            empty = self._commit(name, [], _condition(None))
            self._send("DELETE", name, "", b"", _condition(replies.etag(empty.headers)))  # unless changed since
            return
        found = self._send("HEAD", name, "", b"", {})
        if found is None:
            raise Overtaken("the blob was deleted meanwhile")
        kept = {key: value for key, value in found.headers.items() if key.lower().startswith("x-ms-meta-")}
        for plain, header in _PROPERTIES.items():
            kept |= {header: found.headers[plain]} if plain in found.headers else {}
        if not blocks.committed and replies.length(found.headers):
            self._put_again(name, kept, _condition(blocks.etag))
        else:
            self._commit(name, blocks.committed, kept | _condition(blocks.etag), "Committed")

    def _put_again(self, name: str, kept: dict[str, str], unchanged: dict[str, str]) -> None:
        """Read a blob and write it again. The service compares what it gets with the MD5 that it told before."""
        found = self._send("GET", name, "", b"", dict(unchanged))
        digest = found.headers.get("Content-MD5") if found else None
        if found is None or digest != md5_header(found.content):
            raise StoreRefused("unusable uncommitted blocks beside a blob whose MD5 does not prove it; delete the blob")
        headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": digest} | kept | unchanged
        self._send("PUT", name, "", found.content, headers)

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
        self,
        method: str,
        name: str,
        query: str,
        data: Content,
        headers: dict[str, str],
        *,
        done: int | None = None,
        denied: bool = False,
        **options: Any,  # noqa: ANN401 as azure-core takes them
    ) -> HttpResponse | None:
        """Return the reply, None when there is no such blob. No name: the container's. Raises StoreError.

        `denied`: None also when the credentials may not ask. `options`: for azure-core and our transport.
        """
        try:
            reply = self._reply(self._pipeline, method, self._address(name, query), data, headers, **options)
        except AzureError as error:
            said = translated(error)
            if isinstance(said, StoreAway):
                self.reach.doubt()
            raise said from error
        except StoreAway:  # the identity service
            self.reach.doubt()
            raise
        if reply.status_code == (done or _DONE[method]):
            return reply
        code = code_of(reply)
        if method != "PUT" and code == "BlobNotFound":
            return None
        if code == "ContainerNotFound":
            self._create()  # deleted while we run: created again, or the process ends (A8)
        said = refused(reply)
        if isinstance(said, StoreAway):
            self.reach.doubt()
        elif denied and reply.status_code == 403:
            return None
        raise said

    def _address(self, name: str, query: str) -> str:
        query = "&".join(part for part in (query, self._token) if part)
        path = f"/{quote(name, safe='~/')}" if name else ""
        return self._url + path + (f"?{query}" if query else "")

    def _reply(
        self,
        pipeline: Chain,
        method: str,
        url: str,
        data: Content,
        headers: dict[str, str],
        **options: Any,  # noqa: ANN401 as azure-core takes them
    ) -> HttpResponse:
        if method == "PUT":
            # Without a length http.client would send the pieces of a large body chunked.
            headers |= {"Content-Length": str(len(data)), "Content-Type": "application/octet-stream"}
        request = HttpRequest(method, url, headers=headers, content=cast("bytes", data) or None)
        return pipeline.run(request, **options).http_response


def _pipeline(transport: ThreadTransport, *policies: Any) -> Chain:  # noqa: ANN401 the SDK has no type for one that signs
    return Pipeline(transport, [policy for policy in policies if policy])


def _account(settings: StoreSettings) -> tuple[BlobServiceClient, Callable[[], Any]]:
    """Return what knows the account's address, and what makes a policy that signs. Raises BadConfiguration."""
    if settings.connection_string:
        text = connection_string(settings.connection_string.get_secret_value())
        try:
            service = BlobServiceClient.from_connection_string(text)
        except (ValueError, KeyError):  # their texts may hold the key
            raise BadConfiguration(f"{VARIABLE}: it cannot be read; is it copied whole?") from None
        return service, lambda: service.credential
    url = settings.account_url or ""
    if not url.startswith("https://"):
        raise BadConfiguration(f"NFS_WATCH_ACCOUNT_URL={url}: a token is sent over HTTPS only; write https://")
    credential = Credential()
    return BlobServiceClient(url), lambda: BearerTokenCredentialPolicy(credential, SCOPE)


def _labelled(label: Label) -> dict[str, str]:
    headers = _metadata(label) | {"x-ms-blob-content-type": label.content_type}
    if label.md5:
        headers["x-ms-blob-content-md5"] = b64encode(label.md5).decode()
    return headers


def _metadata(label: Label) -> dict[str, str]:
    return {f"x-ms-meta-{key}": value for key, value in label.metadata().items()}


def _condition(etag: str | None) -> dict[str, str]:
    return {"If-None-Match": "*"} if etag is None else {"If-Match": etag}

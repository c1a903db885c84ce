"""Answers in the service's words: headers, XML errors, XML block lists."""

import base64
import email.utils
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.endpoint.store import Blob, Block, Refused, Source

XML = '<?xml version="1.0" encoding="utf-8"?>'


@dataclass(frozen=True)
class Reply:
    """Status, headers, body. A header of None is left out, also where every reply has it."""

    status: int
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes = b""


def refusal(error: Refused) -> Reply:
    """Build an error reply in the service's form."""
    body = f"{XML}<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
    body += (f"<HeaderName>{escape(error.names)}</HeaderName>" if error.names else "") + "</Error>"
    headers = {"x-ms-error-code": error.code, "Content-Type": "application/xml"} | error.headers
    return Reply(error.status, headers, body.encode())


def version(blob: Blob) -> dict[str, str]:
    """Return the headers that name a blob's version."""
    return {"ETag": blob.etag, "Last-Modified": email.utils.formatdate(blob.modified, usegmt=True)}


def properties(blob: Blob) -> dict[str, str]:
    """Return the headers that describe a blob."""
    described = {"Content-Type": "application/octet-stream"} | blob.headers | version(blob)
    described |= {
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
    }
    described |= {f"x-ms-meta-{name}": value for name, value in blob.metadata.items()}
    return described | {"Accept-Ranges": "bytes", "x-ms-server-encrypted": "true"}


def crc64_text(value: int) -> str:
    """Return a CRC64 as the header carries it: base64 of its 8 bytes, little-endian."""
    return base64.b64encode(value.to_bytes(8, "little")).decode()


def block_list(blob: Blob, kind: str) -> Reply:
    """Answer Get Block List; `kind` is all, committed or uncommitted."""
    parts: list[str] = []
    if kind != "uncommitted":
        parts += ["<CommittedBlocks>", *_blocks(blob.committed or []), "</CommittedBlocks>"]
    if kind != "committed":
        parts += ["<UncommittedBlocks>", *_blocks(blob.uncommitted.values()), "</UncommittedBlocks>"]
    headers = {"Content-Type": "application/xml", "x-ms-blob-content-length": str(blob.length)}
    if blob.committed is not None:
        headers |= version(blob)
    return Reply(200, headers, f"{XML}<BlockList>{''.join(parts)}</BlockList>".encode())


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    return (f"<Block><Name>{block.name}</Name><Size>{block.length}</Size></Block>" for block in blocks)


def listing(blobs: Mapping[str, Blob], page: int, marker: str) -> Reply:
    """Answer List Blobs with snapshots and metadata, `page` entries at once; a marker is the number of the first."""
    entries = [
        (name, made, kept)
        for name, blob in sorted(blobs.items())
        for made, kept in [*blob.snapshots.items(), ("", blob)]
    ]
    first = int(marker or 0)
    parts = [_entry(*one) for one in entries[first : first + page]]
    more = str(first + page) if first + page < len(entries) else ""
    body = (
        f"{XML}<EnumerationResults><Blobs>{''.join(parts)}</Blobs><NextMarker>{more}</NextMarker></EnumerationResults>"
    )
    return Reply(200, {"Content-Type": "application/xml"}, body.encode())


def _entry(name: str, made: str, blob: Blob) -> str:
    said = {"Etag": blob.etag.strip('"'), "Content-Length": str(blob.length)}
    said |= {key: value for key, value in blob.headers.items() if key.startswith("Content-")}
    properties = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in said.items())
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.metadata.items())
    snapshot = f"<Snapshot>{made}</Snapshot>" if made else ""
    inside = f"<Properties>{properties}</Properties><Metadata>{metadata}</Metadata>"
    return f"<Blob><Name>{escape(name)}</Name>{snapshot}{inside}</Blob>"


def wanted(body: bytes | bytearray) -> Iterator[tuple[Source, str]]:
    """Read the body of Put Block List."""
    try:
        root = ET.fromstring(bytes(body))
    except ET.ParseError as error:
        raise Refused(400, "InvalidXmlDocument") from error
    for element in root:
        match element.tag:
            case "Latest" | "Committed" | "Uncommitted" as source:
                yield source, (element.text or "").strip()
            case _:
                raise Refused(400, "InvalidXmlDocument", f"unknown element {element.tag}")

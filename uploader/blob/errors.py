"""Translates the errors of the store, and of the network on the way to it, into ours: in the store's own words."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast
from xml.etree import ElementTree as ET

from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.rest import HttpResponse

from uploader.errors import (
    ExpiredBlocks,
    LeftoverBlocks,
    NameRefused,
    Overtaken,
    StoreAway,
    StoreError,
    StoreRefused,
    TooManyBlocks,
)

# learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
_KINDS: dict[str, type[StoreError]] = {
    "InvalidBlobOrBlock": LeftoverBlocks,
    "InvalidBlockList": ExpiredBlocks,
    "BlockCountExceedsLimit": TooManyBlocks,
    "InvalidUri": NameRefused,
    "InvalidResourceName": NameRefused,
    "RequestUrlFailedToParse": NameRefused,
    "BlobAlreadyExists": Overtaken,
    "ConditionNotMet": Overtaken,
    "ContainerNotFound": StoreAway,
    "ContainerBeingDeleted": StoreAway,
}
# What to do about a refusal, where its code says it.
_ADVICE = {
    "AccountIsDisabled": "the account is disabled",
    "AccountRequiresHttps": "the account takes https:// only: set the endpoint so",
    "AuthenticationFailed": "the key or the signature is wrong, or has expired: renew it",
    "AuthorizationFailure": "the account's firewall or its keys do not allow this: allow this network, or use Entra ID",
    "AuthorizationPermissionMismatch": (
        "reading and writing have to be allowed: the role Storage Blob Data Contributor, or racwd of a signature"
    ),
    "AuthorizationProtocolMismatch": "the signature takes another protocol: use https://, or a signature for both",
    "AuthorizationResourceTypeMismatch": "the signature has to cover objects (srt=co), or to be the container's (sr=c)",
    "AuthorizationServiceMismatch": "the signature has to cover the blob service (ss=b)",
    "AuthorizationSourceIPMismatch": "the signature takes another address: sip= has to cover this site's",
    "FeatureNotSupported": "the store does not know CRC64; set NFS_WATCH_CHECKSUM=md5",
    "InvalidAuthenticationInfo": "the token is not taken: does the identity belong to the account's tenant?",
    "InsufficientAccountPermissions": "the account does not allow this",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: use NFS_WATCH_ACCOUNT_URL with an identity",
    "NoAuthenticationInformation": "credentials are missing",
    "UnsupportedHeader": "the store does not know CRC64; set NFS_WATCH_CHECKSUM=md5",
    "BlobImmutableDueToPolicy": "a policy or a legal hold keeps the blob as it is: send the file under another name",
    "BlobArchived": "the blob is archived: rehydrate or delete it",
    "InvalidBlobType": "an append or a page blob has this name: delete it, or send the file under another",
    "LeaseIdMissing": "somebody has a lease on the blob: it has to be broken or released",
    "SnapshotsPresent": "the blob has snapshots",
    "SnapshotCountExceeded": "the blob has as many snapshots as it can have: delete some",
    "ResourceTypeMismatch": "a directory has this name: rename the file",
}
_CLOCK_LIMIT = 15 * 60  # seconds: requests dated further off are refused with 403
_LONGEST = 200  # characters of the store's own sentence
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?](?=\s|$)|(?=\n|$))")
_SIGNED = "Signature not valid in the specified time frame"  # the one detail of a 403 that holds no signature


def code_of(reply: HttpResponse) -> str:
    """Return the service's error code, "" when the answer has none."""
    return reply.headers.get("x-ms-error-code") or _document(reply).get("Code", "")


def translated(error: AzureError) -> StoreError:
    """Return our error for an error of azure-core."""
    if isinstance(error, HttpResponseError) and error.response is not None:
        return refused(cast("HttpResponse", error.response))
    text = f"the blob store does not answer: {error.message}"[:400]
    return StoreRefused(text) if getattr(error.exc_value, "status", 0) in {403, 407} else StoreAway(text)


def refused(reply: HttpResponse) -> StoreError:
    """Return our error for an answer that does not confirm what was asked."""
    code, status = code_of(reply), reply.status_code
    text = f"the blob store answered {status} {code}".rstrip() + _words(_document(reply))
    skew = _skew(reply)
    if skew:
        text += f"; the clock of this machine is {skew / 60:.0f} minutes off"
    elif _version(reply):
        text += f"; this store does not know version {reply.request.headers.get('x-ms-version')} of the service"
    elif code in _ADVICE:
        text += f"; {_ADVICE[code]}"
    if request_id := reply.headers.get("x-ms-request-id"):
        text += f" (x-ms-request-id {request_id[:64]})"
    if skew:
        return StoreAway(text)  # passes when the clock is set
    if kind := _KINDS.get(code):
        return kind(text)
    if status == 414:
        return NameRefused(text)
    if status == 412:
        return Overtaken(text)
    if status >= 500 or status in {408, 429}:
        return StoreAway(text)
    said = StoreRefused(text)
    said.status = status
    return said


def _document(reply: HttpResponse) -> dict[str, str]:
    """Read the XML of an error; empty when it is none."""
    try:
        root = ET.fromstring(reply.content)  # noqa: S314 the store is trusted with the files themselves
    except (ET.ParseError, ValueError, LookupError):
        return {}
    return {child.tag: (child.text or "").strip() for child in root} if root.tag == "Error" else {}


def _words(said: Mapping[str, str]) -> str:
    """Return the message's first sentence, and the header that it is about."""
    text = ""
    message, detail = said.get("Message", ""), said.get("AuthenticationErrorDetail", "")
    if message and message != said.get("Code"):
        found = _SENTENCE.match(message)
        text = f": {found[0][:_LONGEST].rstrip('.')}" if found else ""
    if detail.startswith(_SIGNED):
        text += f"; {detail[:_LONGEST]}"
    names = [said[name] for name in ("HeaderName", "QueryParameterName") if said.get(name)]
    return text + (f" ({names[0][:100]})" if names else "")


def _version(reply: HttpResponse) -> bool:
    """Tell whether the store refuses our version of its interface."""
    said = _document(reply)
    return said.get("HeaderName", "").lower() == "x-ms-version" or "API version" in said.get("Message", "")


def _skew(reply: HttpResponse) -> float:
    """Return how many seconds this machine's clock is off, 0 unless that is why the request was refused."""
    date = reply.headers.get("Date") if reply.status_code == 403 else None
    if not date:
        return 0.0
    try:
        off = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0  # no date, or a date without a zone
    return off if abs(off) > _CLOCK_LIMIT else 0.0

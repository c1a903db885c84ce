"""Translates the errors of the store, and of the network on the way to it, into ours."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from azure.core.exceptions import AzureError, HttpResponseError

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
_CLOCK_LIMIT = 15 * 60  # seconds: requests dated further off are refused with 403


def code_of(error: AzureError) -> str:
    """Return the service's error code, "" when the service did not answer."""
    if not isinstance(error, HttpResponseError) or error.response is None:
        return ""
    code = getattr(error, "error_code", None) or _headers(error).get("x-ms-error-code", "")
    return str(getattr(code, "value", code))


def _headers(error: HttpResponseError) -> Mapping[str, str]:
    return getattr(error.response, "headers", {})


def translated(error: AzureError) -> StoreError:
    """Return our error for an error of azure-core."""
    if not isinstance(error, HttpResponseError) or error.response is None:
        return StoreAway(short(error))
    code, status = code_of(error), error.status_code or 0
    text = f"the blob store answered {status} {code}".rstrip()
    if skew := _skew(error):
        text += f"; the clock of this machine is {skew / 60:.0f} minutes off"
    if code in {"FeatureNotSupported", "UnsupportedHeader"}:
        return StoreRefused(f"{text}: the store does not know CRC64; set NFS_WATCH_CHECKSUM=md5")
    if kind := _KINDS.get(code):
        return kind(text)
    if status == 414:
        return NameRefused(text)
    if status == 412:
        return Overtaken(text)
    return StoreAway(text) if status >= 500 or status in {408, 429} else StoreRefused(text)


def _skew(error: HttpResponseError) -> float:
    """Return how many seconds this machine's clock is off, 0 unless that is why the request was refused."""
    date = _headers(error).get("Date") if error.status_code == 403 else None
    if not date:
        return 0.0
    try:
        off = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0  # no date, or a date without a zone
    return off if abs(off) > _CLOCK_LIMIT else 0.0


def short(error: AzureError) -> str:
    """Return one line that says why there was no answer."""
    return f"the blob store does not answer: {error.message}"[:300]

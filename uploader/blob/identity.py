"""Tokens of the identity service: DefaultAzureCredential over our own transport, so that proxies and trust are one.

The SDK makes one error of "no answer" and "the answer is no". Only the transport knows which it was: after an answer
that says no a person has to act, everything else passes by itself.
"""

import logging
import os
import threading
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Self

import orjson
from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

from uploader.blob.rate_limit import RateLimit
from uploader.blob.transport import ThreadTransport
from uploader.errors import BadConfiguration, StoreAway, StoreError, StoreRefused

TIMEOUT = 20  # seconds for connecting, and for each send and reply
CLOCK_LIMIT = 5 * 60  # seconds: assertions dated further off are refused
_PASSES = {"temporarily_unavailable", "server_error"}  # RFC 6749, section 4.1.2.1
for _noisy in ("azure.identity", "msal"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)  # each error reaches us, and is told once


class Witness(ThreadTransport):
    """A connection for each request, since several servers are asked. Knows how each thread's last one ended."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT, RateLimit(0))
        self.seen = threading.local()

    def forget(self) -> None:
        """Begin anew: nothing was sent."""
        self.seen.end = None

    def send(self, request: HttpRequest, **options: object) -> HttpResponse:
        """Send as ThreadTransport does."""
        self._local.__dict__.pop("connection", None)
        try:
            reply = self.seen.end = super().send(request, **options)
        except AzureError as error:
            self.seen.end = error
            raise
        finally:
            if made := self._local.__dict__.pop("connection", None):
                made.close()
        return reply

    def verdict(self, otherwise: str) -> StoreError:
        """Return what a failed attempt means; `otherwise`: the SDK's own words, for when nothing was sent."""
        match self.seen.end:
            case None:
                return StoreRefused(f"the credentials cannot be used: {otherwise}")
            case AzureError() as error if (refusal := getattr(error.exc_value, "status", 0)) in {403, 407}:
                return StoreRefused(f"the identity service cannot be reached ({refusal}): {error.message}")
            case AzureError() as error:
                return StoreAway(f"the identity service does not answer: {error.message}"[:400])
            case HttpResponse() as reply:
                return _judged(reply, otherwise)
        raise AssertionError(self.seen.end)


def _judged(reply: HttpResponse, otherwise: str) -> StoreError:
    status = reply.status_code
    said = _said(reply)
    if said is None:
        return StoreAway(f"something on the way answered {status} in place of the identity service")
    code = said.get("error")
    text = f"the identity service answered {status} {code if isinstance(code, str) else ''}".rstrip()
    words = said.get("error_description") or said.get("message") or otherwise
    text += f": {str(words).splitlines()[0].split('. ')[0][:300].rstrip('.')}"
    if status >= 500 or status in {408, 429} or code in _PASSES:
        return StoreAway(text)
    if off := _clock(reply):
        return StoreAway(f"{text}; the clock of this machine is {off / 60:.0f} minutes off")
    return StoreRefused(text)


def _said(reply: HttpResponse) -> dict[str, Any] | None:
    """Return the JSON object that the service answered, None when it was none."""
    try:
        said = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


def _clock(reply: HttpResponse) -> float:
    """Return how many seconds this machine's clock is off, 0 when that is no reason for a refusal."""
    try:
        off = time() - parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return off if abs(off) > CLOCK_LIMIT else 0.0


class Credential:
    """DefaultAzureCredential (A22), whose errors are ours."""

    def __init__(self) -> None:
        """Ask nobody yet. Raises BadConfiguration: a selector that is missing or misspelt, no certificate."""
        self._witness = Witness()
        options: dict[str, Any] = {"transport": self._witness, "retry_total": 2, "retry_backoff_factor": 0.3}
        if os.environ.get("AZURE_AUTHORITY_HOST"):
            options["disable_instance_discovery"] = True  # a site's own authority is known to nobody else
        try:
            # A missing or misspelt AZURE_TOKEN_CREDENTIALS is an error at once, not a chain that fails after 30 s.
            self._inner = DefaultAzureCredential(require_envvar=True, **options)
        except (ValueError, OSError, CredentialUnavailableError) as error:
            reason = " ".join(str(error).split())
            raise BadConfiguration(f"NFS_WATCH_ACCOUNT_URL: its credentials are not usable: {reason}") from None

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token. Raises StoreAway; StoreRefused when the answer is no, or the credentials are incomplete."""
        self._witness.forget()
        try:
            return self._inner.get_token_info(*scopes, options=options)
        except ClientAuthenticationError as error:
            raise self._witness.verdict(_first(error.message)) from None

    def close(self) -> None:
        """Do nothing: connections are closed after each request."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _first(message: str) -> str:
    """Return the reasons in DefaultAzureCredential's report, without its headings and links."""
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line for line in lines if line and "aka.ms" not in line and not line.endswith(":"))[:400]

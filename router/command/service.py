"""The calls to the router, or to a shard: repeated while there is no answer, for a program may be restarting."""

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from uploader.errors import Declined, Misused, Unreachable

Fields = dict[str, Any]
ANSWER = 40.0  # seconds for one answer: the router needs up to 30
PAGE = 1000  # entries of a page
PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between tries; the last one again and again
CLOCKS = 2.0  # seconds that the clocks of router and shard may differ


class Service:
    """What answers at `url`. `patience`: seconds to go on without a usable answer.

    Calls raise Unreachable, Declined and Misused. `away` is told the reason each time that there is no answer.
    """

    def __init__(self, url: str, patience: float, away: Callable[[str], None] = lambda _: None) -> None:
        self.url = _checked(url)
        self.patience = patience
        self.away = away
        # No proxies: those of the environment are for Azure. TLS trusts what SSL_CERT_FILE or the system says.
        trust = ssl.create_default_context() if self.url.startswith("https://") else False
        self._http = httpx.Client(trust_env=False, verify=trust, timeout=ANSWER)

    def start(self, fields: Fields) -> Fields:
        """Start a session; `fields` have its name, so that a second try cannot start another one."""
        try:
            return self._ask("POST", "start", json=fields)
        except Declined as error:
            if error.code != "already-active" or not error.age:
                raise
            (found,) = self.get("status", session=fields["session"])["sessions"]
            began = time_of(found["started_at"])
            if found["state"] != "active" or not error.date or error.date - began > error.age + CLOCKS:
                raise
            # It began after the first try, whose answer was lost: it is ours.
            return {key: found[key] for key in ("session", "state", "shard", "started_at")} | {
                "folder": found["session"]
            }

    def stop(self, session: str, *, drain: bool) -> Fields:
        """Stop a session."""
        return self._ask("POST", "stop", json={"session": session, "drain": drain})

    def retry(self, session: str, path: str | None) -> Fields:
        """Have a session's failed files, or one of them, tried at once."""
        return self._ask("POST", "retry", json={"session": session} | ({} if path is None else {"path": path}))

    def get(self, call: str, **query: str | int) -> Fields:
        """Ask for one answer."""
        return self._ask("GET", call, params=query, timeout=ANSWER + int(query.get("wait", 0)))

    def pages(self, call: str, key: str, **query: str | int) -> Iterator[Fields]:
        """Ask page by page, and yield the entries that stand under `key`."""
        page = self.get(call, **query, limit=PAGE)
        yield from page[key]
        while page["next"]:
            page = self.get(call, **query, limit=PAGE, after=page["next"])
            yield from page[key]

    def _ask(self, method: str, call: str, **what: Any) -> Fields:  # noqa: ANN401 httpx's options
        began = time.monotonic()
        for number in range(1_000_000_000):
            try:
                reply = self._http.request(method, f"{self.url}/v1/watch/{call}", **what)
                if reply.status_code < 500:
                    return self._read(reply, time.monotonic() - began if number else 0)
                reason = _detail(reply)
            except httpx.TransportError as error:
                reason = _reason(error)
            if time.monotonic() - began >= self.patience:
                break
            self.away(reason)
            time.sleep(PAUSES[min(number, len(PAUSES) - 1)])
        raise Unreachable(f"{self.url} gives no answer that can be used: {reason} (NFS_WATCH_URL, --url)")

    def _read(self, reply: httpx.Response, age: float) -> Fields:
        """Return the answer's JSON object. Raises Declined, Misused, Unreachable."""
        fields = _json(reply)
        if reply.is_success and fields is not None:
            return fields
        if reply.is_client_error and fields and "code" in fields:
            if fields["code"] == "bad-request":
                raise Misused(str(fields.get("detail")))
            raise Declined(fields, age, _date(reply))
        raise Unreachable(f"{self.url} is not nfs-watch: it answered {reply.status_code} (NFS_WATCH_URL, --url)")


def time_of(text: str) -> float:
    """Return a time of an answer (RFC 3339, UTC) in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _checked(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in {"http", "https"} or not address.host or address.query or address.fragment:
        raise Misused(f"NFS_WATCH_URL, --url: {url!r} has to be http:// or https:// and a host, perhaps a port")
    return url.rstrip("/")


def _json(reply: httpx.Response) -> Fields | None:
    try:
        fields = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def _detail(reply: httpx.Response) -> str:
    said = (_json(reply) or {}).get("detail")
    return str(said) if said else f"it answered {reply.status_code}"


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    root: BaseException = error
    while root.__cause__ or root.__context__:  # the socket's own error says most
        root = root.__cause__ or root.__context__ or root
    return "nothing listens there" if isinstance(root, ConnectionRefusedError) else str(root) or type(root).__name__


def _date(reply: httpx.Response) -> float:
    try:
        return parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return 0

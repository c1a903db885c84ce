"""Refuses what a foreign web page sends through the browser of somebody who reaches this service.

There is no password (A19), so a browser must not lend its place in the network to a page from elsewhere.

- `Origin` comes with each POST and event stream of another page, `Sec-Fetch-Site` over https and locally:
  https://www.w3.org/TR/fetch-metadata/. A link to the status page may be followed from anywhere.
- `Host` stops DNS rebinding, where the page's own name comes to mean this machine, so that both look right: a name
  counts only if nobody can register it, or if it is one of the site's own.
"""

import os
import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from uploader.environment import Environment
from uploader.errors import Foreign
from uploader.web.wire import problem

# Names below these are given by a network to its own machines, never to a stranger: RFC 6761, 6762, 8375, and ICANN's
# .internal; .lan is what many routers use, .svc what Kubernetes does.
PRIVATE = (".localhost", ".local", ".home.arpa", ".internal", ".lan", ".svc")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/\s]+)(?::\d*)?")


class Names:
    """The names under which a browser may know this service."""

    def __init__(self, own: Sequence[str], statefulset: str, namespace: str) -> None:
        """`own`: the site's names in lower case, `.example.org` for all below; the others make the cluster's."""
        self._own = frozenset(own)
        self._below = tuple(name for name in own if name.startswith("."))
        stem = re.escape(statefulset)
        self._in_cluster = re.compile(rf"{stem}(?:-\d+\.{stem}|-router\.{re.escape(namespace)})")

    def private(self, host: str) -> bool:
        """Tell whether `host` is an address, or a name that no stranger can have."""
        return _address(host) or "." not in host or host.endswith(PRIVATE) or self.listed(host)

    def listed(self, host: str) -> bool:
        """Tell whether `host` is one of the site's own names, or of the cluster's."""
        return host in self._own or host.endswith(self._below) or bool(self._in_cluster.fullmatch(host))


def names_of(settings: Environment) -> Names:
    """Return the names that the settings and the pod's namespace give."""
    return Names(settings.names, settings.statefulset, os.environ.get("POD_NAMESPACE", ""))


class Guard:
    """An ASGI application that answers 403 for a foreign page's request, and hands on all others."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        reason = self._objection(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else ""
        if reason:
            await problem(Foreign.status, Foreign.code, reason)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _objection(self, method: str, headers: Headers) -> str:
        at = headers.get("host", "").lower()
        host = _name(at)
        if at and (not host or not self._names.private(host)):
            return (
                f"Host: {at[:200]} is not a name of this service. An address is, a name without a dot, and one in "
                f"{', '.join(PRIVATE)}; others are named in NFS_WATCH_NAMES"
            )
        origin = headers.get("origin", "").lower()
        if origin and not self._ours(origin, at):
            return f"Origin: {origin[:200]} is another site; its pages may not call this service (NFS_WATCH_NAMES)"
        site = headers.get("sec-fetch-site", "none")
        if site in {"none", "same-origin"} or origin or _followed(method, headers):
            return ""
        return "a page of another site asked for this, and may not (Sec-Fetch-Site)"

    def _ours(self, origin: str, at: str) -> bool:
        """Tell whether a page of this origin is ours: from `at`, or from a listed name, where a proxy changed `at`."""
        try:
            of = urlsplit(origin)
            return of.scheme in {"http", "https"} and (of.netloc == at or self._names.listed(of.hostname or ""))
        except ValueError:
            return False


def _followed(method: str, headers: Headers) -> bool:
    """Tell whether somebody followed a link: the page that held the link sees nothing of the answer."""
    document = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return document and method in {"GET", "HEAD"}


def _name(at: str) -> str:
    """Return the host of a Host header, without port, brackets and the root's dot; "" when it is none."""
    match = _HOST.fullmatch(at)
    return match[1].strip("[]").removesuffix(".") if match else ""


def _address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

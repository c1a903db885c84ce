"""The proxy on the way, as the environment names it: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

The password is in no text and in no repr.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from uploader.errors import BadConfiguration

FORM = "http://user:password@host:port, with user and password percent-encoded"


@dataclass(frozen=True)
class Proxy:
    """A proxy that is spoken to over plain http. `authorization`: the value of Proxy-Authorization, "" without one."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the proxy wants."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


class Proxies:
    """The environment's proxies, read once."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """`environment`: by scheme, as urllib reads it. Raises BadConfiguration, naming the variable."""
        given = getproxies_environment() if environment is None else environment
        self._by_scheme = {
            scheme: _parsed(scheme, given[scheme]) for scheme in ("http", "https", "all") if scheme in given
        }
        self._none = given.get("no", "").replace(",", " ").split()

    def on_the_way(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for this server, None when it is reached directly."""
        proxy = self._by_scheme.get(scheme) or self._by_scheme.get("all")
        return None if proxy is None or any(_excepts(rule, host, port) for rule in self._none) else proxy


def bracketed(host: str) -> str:
    """Return a host as URLs and CONNECT write it."""
    return f"[{host}]" if ":" in host else host


def _parsed(scheme: str, value: str) -> Proxy:
    variable = f"{scheme.upper()}_PROXY"
    try:
        url = urlsplit(value.strip() if "://" in value else f"http://{value.strip()}")
        host, port = url.hostname, url.port
    except ValueError:  # its text may hold the password
        raise BadConfiguration(f"{variable}: it cannot be read; it has to be {FORM}") from None
    if url.scheme != "http":
        raise BadConfiguration(f"{variable}: proxies are spoken to over http:// only, not {url.scheme}://")
    if not host or url.path not in {"", "/"} or url.query or url.fragment:
        raise BadConfiguration(f"{variable}: it has to be {FORM}")
    return Proxy(host, port or 80, _basic(url.username, url.password))


def _basic(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()


def _excepts(rule: str, host: str, port: int) -> bool:
    """Tell whether a rule of NO_PROXY names this server: a host, a domain, an address, a network, or *."""
    rule = rule.rpartition("://")[2].rstrip("/") if "://" in rule else rule
    if rule == "*":
        return True
    try:
        return ip_address(host) in ip_network(rule.strip("[]"), strict=False)
    except ValueError:
        name, _, its_port = rule.rpartition(":")
    rule, its_port = (name, its_port) if name and its_port.isdigit() else (rule, "")
    rule, host = rule.strip("[]").lstrip("*").lstrip(".").lower(), host.lower()
    return bool(rule) and its_port in {"", str(port)} and (host == rule or host.endswith(f".{rule}"))

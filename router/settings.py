"""The router's settings: read once from the environment; a wrong value is refused with its variable's name."""

from string import Formatter
from typing import Annotated

import httpx
from pydantic import AfterValidator, Field

from uploader.environment import Environment, read

URL_RULE = "http:// or https:// and a host, with {ordinal} for the shard's number and no other {placeholder}"
MAX_SHARDS = 1000  # a status asks every shard at once: one socket each


def _check_url(url: str) -> str:
    try:
        fields = [part[1:] for part in Formatter().parse(url) if part[1] is not None]
        plain = not any(name != "ordinal" or form or conversion for name, form, conversion in fields)
        address = httpx.URL(url.format(ordinal=0)) if plain and fields else None
    except (ValueError, httpx.InvalidURL):
        address = None
    if address is None or address.scheme not in {"http", "https"} or not address.host or address.query:
        raise ValueError(URL_RULE)
    return url.rstrip("/")


class Settings(Environment):
    """The settings of the router."""

    shard_url: Annotated[str, AfterValidator(_check_url)] = "http://nfs-watch-{ordinal}.nfs-watch:8080"
    replicas: int | None = Field(default=None, ge=0, le=MAX_SHARDS)


_ALLOWED = {
    "shard_url": URL_RULE,
    "replicas": f"a whole number from 0 to {MAX_SHARDS}",
    "statefulset": "the StatefulSet's name: a-z 0-9 - and dots, at most 253",
    "host": "an address of this machine, such as 0.0.0.0",
    "names": "host names, comma-separated, without a port: jetson.example.org, or .example.org for all below it",
    "port": "a whole number from 1 to 65535",
    "clients": "a whole number from 16 to 100000",
}


def load() -> Settings:
    """Read the environment. Raises BadConfiguration, naming each wrong variable and what is allowed."""
    return read(Settings, allowed=_ALLOWED)

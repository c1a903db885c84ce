"""Waits until sessions have ended: restarts of router and shards on the way are survived."""

from collections.abc import Sequence
from math import inf
from typing import Any, Protocol

from router.command.service import Service

Fields = dict[str, Any]


class Show(Protocol):
    """Shows how sessions go on. `pace`: seconds between two looks."""

    pace: int

    def now(self, one: Fields) -> None:
        """Show a session's status."""

    def away(self, reason: str) -> None:
        """Show that there is no answer, and why."""

    def close(self) -> None:
        """Show nothing more."""


def wait(service: Service, names: Sequence[str], show: Show) -> list[Fields]:
    """Return the last status of each session: it has ended, or stays stopped until somebody deals with kept files.

    Once the service has answered, it is waited for as long as it takes. Raises Unreachable, Declined, Misused.
    """
    last: dict[str, Fields] = {}
    open_ = list(dict.fromkeys(names))
    pace = 0
    try:
        while open_:
            for name in tuple(open_):
                (one,) = service.get("status", session=name, wait=pace if name == open_[0] else 0)["sessions"]
                last[name] = one
                show.now(one)
                if one["state"] == "ended" or _stays(service, one):
                    open_.remove(name)
            service.patience, service.away = inf, show.away
            pace = show.pace
    finally:
        show.close()
    return [last[name] for name in dict.fromkeys(names)]


def _stays(service: Service, one: Fields) -> bool:
    """Tell whether kept files hold a stopped session. It may end between two questions: then its next look says so."""
    if not kept(service, one):
        return False
    (now,) = service.get("status", session=one["session"])["sessions"]
    return bool(now["state"] == "stopped")


def kept(service: Service, one: Fields) -> list[Fields]:
    """Return the files that keep a stopped session from its end, 1,000 at most."""
    if one["state"] != "stopped" or not one["files"]["failed"]:
        return []
    return list(service.get("files", session=one["session"], state="kept", limit=1000)["files"])

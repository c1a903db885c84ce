"""The status of all shards, asked in parallel and merged into one."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from router.shard import STATUS, ShardAway, Shards
from uploader.errors import BadShard
from uploader.session import now
from uploader.web.openapi.models import ShardStatus, Status

SAID = ("waits_for", "unreadable", "store", "version", "room")  # what a shard says of itself
LIMIT = 1.5  # seconds that one shard may take, from the moment when it is asked
WHOLE = 2.0  # seconds for the whole answer
AT_ONCE = 64  # questions: each takes the router 1 ms of its own, which must not count against the last of a thousand
KNOCKS = 16  # questions to shards that did not answer the last time, which hold up no other


@dataclass(frozen=True)
class Part:
    """One shard's answer. Its sessions are passed on unchanged: those of a newer shard may have more fields."""

    shard: ShardStatus
    sessions: list[dict[str, Any]]
    at: str = field(default_factory=now)


class Gather:
    """Asks every shard for its status."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._asking: dict[int, asyncio.Task[Part]] = {}
        self._last: dict[int, Part] = {}
        self._known: dict[int, Part] = {}  # the last answer of each shard that has answered
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._knocks = asyncio.Semaphore(KNOCKS)
        self._since: dict[int, str] = {}  # when a shard that is away was first seen to be

    async def now(self, n: int) -> Status:
        """Ask all `n` shards and return their status as one; takes at most WHOLE seconds.

        A shard that was not asked in this time is told as it was last seen.
        """
        asked = {shard: asyncio.create_task(self._seen(shard)) for shard in range(n)}
        if asked:
            _, late = await asyncio.wait(asked.values(), timeout=WHOLE)
            for task in late:
                task.cancel()
        return _merged(
            [
                task.result() if task.done() and not task.cancelled() else self._before(shard)
                for shard, task in asked.items()
            ]
        )

    def _before(self, shard: int) -> Part:
        """Return what was last seen of a shard."""
        return self._last.get(shard) or self._known.get(shard) or _away(shard, "there was no time to ask it")

    async def latest(self, n: int) -> Status:
        """Return the status for the event stream, without waiting for a shard that did not answer the last time.

        Such a shard is still asked in the background, and is back as soon as it answers.
        """
        for shard in range(n):
            if shard not in self._asking:
                self._asking[shard] = asyncio.create_task(self._refresh(shard))
        away = {shard for shard, part in self._last.items() if not part.shard.reachable}
        awaited = [self._asking[shard] for shard in range(n) if shard not in away]
        if awaited:
            await asyncio.wait(awaited, timeout=WHOLE)  # who answers later is told by the next look
        return _merged([self._last.get(shard) or _away(shard, "not asked yet") for shard in range(n)])

    async def _refresh(self, shard: int) -> Part:
        try:
            self._last[shard] = await self._seen(shard)
        finally:
            del self._asking[shard]
        return self._last[shard]

    async def _seen(self, shard: int) -> Part:
        """Ask a shard; of one that is away, return what was last known of its sessions, and since when it is."""
        part = await self._one(shard)
        if part.shard.reachable:
            self._known[shard] = part
            self._since.pop(shard, None)
            return part
        since = self._since.setdefault(shard, part.at)
        before = self._known.get(shard)
        part.shard.since = since
        if before is None:
            return part
        part.shard.sessions = before.shard.sessions
        return replace(part, sessions=[one | {"as_of": before.at} for one in before.sessions])

    async def _one(self, shard: int) -> Part:
        try:
            async with self._knocks if shard in self._since else self._turns:
                reply = await self._shards.get(shard, STATUS, patience=LIMIT)
        except (ShardAway, BadShard) as error:
            return _away(shard, str(error))
        sessions = reply.body.get("sessions")
        if reply.status != 200 or not isinstance(sessions, list) or not all(map(_is_session, sessions)):
            return _away(shard, f"shard {shard} answered {reply.status} without a status")
        names = [one["session"] for one in sessions]
        try:
            asked = ShardStatus(shard=shard, reachable=True, sessions=names, **_said(reply.body))
        except ValidationError:
            return _away(shard, f"shard {shard} says of itself what cannot be read")
        return Part(asked, sessions)


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """Return what the shard says of itself."""
    match body.get("shards"):
        case [dict(said)]:
            return {name: said[name] for name in SAID if said.get(name) is not None}
    return {}


def _is_session(one: Any) -> bool:  # noqa: ANN401 any JSON
    return isinstance(one, dict) and isinstance(one.get("session"), str)


def _away(shard: int, error: str) -> Part:
    return Part(ShardStatus(shard=shard, reachable=False, sessions=[], error=error), [])


def _merged(parts: list[Part]) -> Status:
    here = {one["session"] for part in parts if part.shard.reachable for one in part.sessions}
    sessions = [
        one for part in parts for one in part.sessions if part.shard.reachable or one["session"] not in here
    ]  # a session that another shard has adopted is told as that one knows it
    return Status.model_construct(sessions=sessions, shards=[part.shard for part in parts])

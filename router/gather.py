"""The status of all shards, asked at once and put together."""

import asyncio
from typing import Any

from router.shard import STATUS, ShardAway, Shards
from uploader.errors import BadShard

LIMIT = 1.5  # seconds that one shard may take; the whole answer stays below 2


class Gather:
    """Asks every shard for its status."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._asking: dict[int, asyncio.Task[dict[str, Any]]] = {}
        self._last: dict[int, dict[str, Any]] = {}

    async def now(self, n: int) -> dict[str, Any]:
        """Ask all N shards and return their status as one; takes at most LIMIT."""
        return _merged(await asyncio.gather(*(self._one(shard) for shard in range(n))))

    async def latest(self, n: int) -> dict[str, Any]:
        """Return the status for the event stream: never waits for a shard that was away the last time.

        Such a shard is asked all the while, beside the others, and is back as soon as it answers.
        """
        for shard in range(n):
            if shard not in self._asking:
                self._asking[shard] = asyncio.create_task(self._noted(shard))
        awaited = [self._asking[shard] for shard in range(n) if self._last.get(shard, {}).get("reachable", True)]
        if awaited:
            await asyncio.wait(awaited)
        return _merged([self._last.get(shard) or _away(shard, "not asked yet") for shard in range(n)])

    async def _noted(self, shard: int) -> dict[str, Any]:
        try:
            self._last[shard] = await self._one(shard)
        finally:
            del self._asking[shard]
        return self._last[shard]

    async def _one(self, shard: int) -> dict[str, Any]:
        try:
            reply = await self._shards.get(shard, STATUS, patience=LIMIT)
        except (ShardAway, BadShard) as error:
            return _away(shard, str(error))
        sessions = reply.body.get("sessions")
        if reply.status != 200 or not isinstance(sessions, list) or not all(map(_is_session, sessions)):
            return _away(shard, f"shard {shard} answered {reply.status} and no status")
        return {"shard": shard, "reachable": True, "sessions": sessions}


def _is_session(one: Any) -> bool:  # noqa: ANN401 any JSON
    return isinstance(one, dict) and isinstance(one.get("session"), str)


def _away(shard: int, error: str) -> dict[str, Any]:
    return {"shard": shard, "reachable": False, "sessions": [], "error": error}


def _merged(shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "sessions": [session for shard in shards for session in shard["sessions"]],
        "shards": [{**shard, "sessions": [one["session"] for one in shard["sessions"]]} for shard in shards],
    }

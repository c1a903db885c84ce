"""Sends start, stop and status of one session to the shard that owns the session.

The router holds no state and no lock. The record on the share keeps two sessions of one name from being
started: a shard makes it with link(), which fails when the record exists. So a start that got no answer may
be offered to the next shard. If the first shard has made the record after all, or makes it later, one of the
two shards gets EEXIST and answers 409 already-active; there is one record, and it names one owner.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from router.shard import FILES, PATIENCE, RESULTS, RETRY, START, STATUS, STOP, Reply, ShardAway, Shards
from uploader.cluster.placement import rank
from uploader.errors import BadRequest, BadShard, NotReady, ShardFull

DEADLINE = 28.0  # seconds for all shards together; below the 30 s that clients commonly wait
STOPPING = 25.0  # seconds: a stop at once waits up to 20 s for the uploads in progress

Send = Callable[[int], Awaitable[Reply]]


@dataclass
class _Walk:
    """The answers of the shards that were asked so far."""

    away: dict[int, ShardAway] = field(default_factory=dict)
    full: dict[int, Reply] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)

    @property
    def unsure(self) -> bool:
        return any(error.unsure for error in self.away.values())

    def seen(self, shard: int) -> bool:
        return shard in self.away or shard in self.full or shard in self.moved


class Forward:
    """Sends requests to shards; each call takes `n`, the number of shards."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def start(self, name: str, fields: dict[str, Any], *, made: bool, n: int) -> Reply:
        """Start a session on the first shard in its name's rank that takes it. `made`: the router chose the name."""
        order = rank(name, n)
        walk = _Walk()

        async def send(shard: int) -> Reply:
            # Only the owner by rank is asked without naming it: any other shard would refuse the name.
            named = {} if shard == order[0] and not walk.moved else {"shard": shard}
            return await self._shards.post(shard, START, {**fields, "session": name, **named})

        reply = await _walked(order, send, walk)
        if made and walk.unsure and reply.code == "already-active":
            # Nobody else knows this name: the record was made by the request whose answer was lost.
            return await self._started(name, reply, n)
        return reply

    async def start_on(self, shard: int, name: str, fields: dict[str, Any], n: int) -> Reply:
        """Start the session on the shard that the request names, and on no other."""
        if shard >= n:
            raise BadRequest(f"there is no shard {shard}: shards are numbered from 0 to {n - 1}")
        try:
            return await self._shards.post(shard, START, {**fields, "session": name, "shard": shard})
        except ShardAway as error:
            raise NotReady(str(error)) from error

    async def stop(self, name: str, fields: dict[str, Any], n: int) -> Reply:
        """Stop the session on its owner."""

        async def send(shard: int) -> Reply:
            return await self._shards.post(shard, STOP, fields, patience=STOPPING)

        return await _walked(rank(name, n), send, _Walk())

    async def retry(self, name: str, fields: dict[str, Any], n: int) -> Reply:
        """Have the owner try a session's failed files at once."""
        return await _walked(rank(name, n), lambda shard: self._shards.post(shard, RETRY, fields), _Walk())

    async def status(self, name: str, n: int, wait: int = 0) -> Reply:
        """Ask for the status of one session; any shard that answers knows the owner. `wait`: seconds for its end."""
        query = {"session": name} | ({"wait": str(wait)} if wait else {})

        async def send(shard: int) -> Reply:
            return await self._shards.get(shard, STATUS, PATIENCE + wait, query)

        return await _walked(rank(name, n), send, _Walk(), DEADLINE + wait)

    async def files(self, name: str, query: dict[str, str], n: int) -> Reply:
        """Ask the owner for a page of a session's files."""
        return await _walked(rank(name, n), lambda shard: self._shards.get(shard, FILES, PATIENCE, query), _Walk())

    async def results(self, query: dict[str, str], n: int) -> Reply:
        """Ask for a page of the results: they lie on the share, so that every shard that answers knows them all."""
        return await _walked(list(range(n)), lambda shard: self._shards.get(shard, RESULTS, PATIENCE, query), _Walk())

    async def _started(self, name: str, refusal: Reply, n: int) -> Reply:
        found = (await self.status(name, n)).body.get("sessions")
        if not isinstance(found, list) or not found or not isinstance(found[0], dict):
            return refusal
        session = {key: found[0].get(key) for key in ("session", "state", "shard", "started_at")}
        return Reply(refusal.shard, 201, {**session, "folder": name})


async def _walked(order: list[int], send: Send, walk: _Walk, deadline: float = DEADLINE) -> Reply:
    """Ask the shards in this order until one decides; a 421 is followed once.

    Raises NotReady when no shard could, ShardFull when no shard has room, BadShard when shards do not agree.
    """
    try:
        async with asyncio.timeout(deadline):
            return await _decided(deque(order), send, walk)
    except TimeoutError as error:
        raise NotReady(f"no shard answered within {deadline:.0f} s. {_reasons(walk)}") from error


async def _decided(todo: deque[int], send: Send, walk: _Walk) -> Reply:
    while todo:
        shard = todo.popleft()
        try:
            reply = await send(shard)
        except ShardAway as error:
            walk.away[shard] = error
            continue
        if reply.code == "shard-full":
            walk.full[shard] = reply
        elif reply.status != 421:
            return reply
        else:
            owner = _owner(reply)
            if walk.moved or walk.seen(owner) or owner == shard:
                return _blocked(shard, owner, walk)
            walk.moved[shard] = owner
            todo = deque([owner, *(other for other in todo if other != owner)])
    if walk.full and not walk.away:
        raise ShardFull(f"every shard is full. {_reasons(walk)}", sessions=_sessions(walk))
    raise NotReady(_reasons(walk), **({"sessions": _sessions(walk)} if walk.full else {}))


def _owner(reply: Reply) -> int:
    owner = reply.body.get("shard")
    if type(owner) is not int or owner < 0:
        raise BadShard(
            f"shard {reply.shard} says that another owns the session, but not which shard", shard=reply.shard
        )
    return owner


def _blocked(shard: int, owner: int, walk: _Walk) -> Reply:
    """Return or raise the answer when an owner was asked already, and could not serve the request."""
    if owner in walk.full:
        return walk.full[owner]
    if owner in walk.away:
        raise NotReady(f"shard {owner} owns the session. {walk.away[owner]}")
    raise BadShard(f"the shards do not agree: shard {shard} says that shard {owner} owns the session", shard=shard)


def _reasons(walk: _Walk) -> str:
    away = [str(error) for _, error in sorted(walk.away.items())]
    full = [f"shard {shard} is full" for shard in sorted(walk.full)]
    return "; ".join(away + full)


def _sessions(walk: _Walk) -> list[Any]:
    lists = (reply.body.get("sessions") for _, reply in sorted(walk.full.items()))
    return [session for some in lists if isinstance(some, list) for session in some]

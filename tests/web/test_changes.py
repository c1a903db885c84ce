"""The event stream that sends what has changed: whoever applies it has the whole state."""

import asyncio
import json
import random
from typing import Any

import pytest
from starlette.requests import Request

from tests.support.clock import in_no_time
from uploader.web.events import Events
from uploader.web.openapi.models import ShardStatus, Status


def status(sessions: dict[tuple[str, int], int], shards: int, error: str | None = None) -> Status:
    """Return a status in which each session has a number."""
    told = [{"session": name, "shard": shard, "number": number} for (name, shard), number in sessions.items()]
    seen = [ShardStatus(shard=number, reachable=number % 3 > 0, sessions=[]) for number in range(shards)]
    return Status.model_construct(sessions=told, shards=seen, error=error)


class Viewer:
    """What a page makes of the events."""

    def __init__(self) -> None:
        self.sessions: dict[tuple[str, int], Any] = {}
        self.shards: dict[int, Any] = {}
        self.whole = self.changes = 0

    def take(self, event: bytes) -> None:
        data = json.loads(event.partition(b"data: ")[2])
        if b"event: changes" in event:
            self.changes += 1
            for one in data["gone"]:
                del self.sessions[one["session"], one["shard"]]
        else:
            self.whole += 1
            self.sessions, self.shards = {}, {}
        self.sessions |= {(one["session"], one["shard"]): one for one in data["sessions"]}
        self.shards |= {one["shard"]: one for one in data["shards"]}


def watched(states: list[Status], *, pause: float = 0.0) -> tuple[Viewer, list[bytes]]:
    """Let a viewer see these states, one at each look; it sleeps so long after each event."""
    left = list(states)

    async def snapshot() -> Status:
        return left.pop(0) if len(left) > 1 else left[0]

    async def seen() -> tuple[Viewer, list[bytes]]:
        viewer, came = Viewer(), []
        stream: Any = Events(snapshot, heartbeat=5).response(Request({"type": "http", "method": "GET"}), changes=True)
        async for part in stream.body_iterator:
            if part.startswith(b": "):
                break
            if part.startswith(b"id: "):
                came.append(part)
                viewer.take(part)
                await asyncio.sleep(pause)
        await stream.body_iterator.aclose()
        return viewer, came

    return in_no_time(seen())


def drawn(seed: int, count: int = 40) -> list[Status]:
    """Draw states in which sessions begin, change, move and end, and shards come."""
    rng = random.Random(seed)
    sessions: dict[tuple[str, int], int] = {}
    states = []
    for step in range(count):
        for _ in range(rng.randrange(3)):
            sessions[f"run-{rng.randrange(6)}", rng.randrange(3)] = rng.randrange(1000)
        if sessions and rng.random() < 0.3:
            del sessions[rng.choice(sorted(sessions))]
        states.append(status(sessions, 3 + step // 10))
    return states


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pause", [0.0, 0.9], ids=["quick", "slow"])
def test_whoever_applies_the_changes_has_the_whole_state(seed: int, pause: float) -> None:
    """A viewer that reads at once gets changes only; one that misses states gets whole ones in between."""
    states = drawn(seed)
    viewer, _ = watched(states, pause=pause)
    last = json.loads(json.dumps({"sessions": states[-1].sessions}))
    assert sorted(viewer.sessions.values(), key=str) == sorted(last["sessions"], key=str)
    assert sorted(viewer.shards) == [shard.shard for shard in states[-1].shards]
    assert viewer.whole == 1 if pause == 0 else viewer.whole > 1
    assert viewer.changes > 10 or pause


def test_only_what_has_changed_is_sent() -> None:
    """One session of a thousand moves: the event has that one, and no shard."""
    sessions = {(f"run-{number}", number): 0 for number in range(1000)}
    _, (first, second) = watched([status(sessions, 1000), status(sessions | {("run-7", 7): 1}, 1000)])
    assert len(first) > 50_000
    assert len(second) < 200
    assert json.loads(second.partition(b"data: ")[2]) == {
        "sessions": [{"session": "run-7", "shard": 7, "number": 1}],
        "shards": [],
        "gone": [],
    }


@pytest.mark.parametrize(
    "after", [status({}, 2), status({}, 3, "the Kubernetes API is away")], ids=["shards go", "error"]
)
def test_what_changes_cannot_tell_comes_as_a_whole_state(after: Status) -> None:
    """Scaled down, or an error of the whole."""
    viewer, came = watched([status({("a", 1): 1}, 3), after])
    assert (viewer.whole, viewer.changes) == (2, 0)
    assert json.loads(came[-1].partition(b"data: ")[2])["sessions"] == []


def test_whoever_does_not_ask_for_changes_gets_whole_states() -> None:
    """The form that was there before stays."""

    async def seen() -> list[bytes]:
        states = drawn(1)

        async def snapshot() -> Status:
            return states.pop(0) if len(states) > 1 else states[0]

        events = Events(snapshot, heartbeat=5)
        streams: list[Any] = [
            events.response(Request({"type": "http", "method": "GET"}), changes=changes) for changes in (False, True)
        ]

        async def one(stream: Any) -> list[bytes]:
            came = []
            async for part in stream.body_iterator:
                came.append(part)
                if len(came) == 8:
                    break
            await stream.body_iterator.aclose()
            return came

        plain, _ = await asyncio.gather(*(one(stream) for stream in streams))
        return plain

    assert not [event for event in in_no_time(seen()) if b"event: changes" in event]

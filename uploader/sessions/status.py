"""The answers about sessions. Counters are those of the whole session: receipts, and what lies on the share."""

from typing import Any

from uploader.backlog.inventory import Inventory
from uploader.session import Session
from uploader.share.destination import Destination
from uploader.telemetry.text import shown
from uploader.version import VERSION
from uploader.web.openapi import models
from uploader.web.openapi.models import SessionState, ShardStatus
from uploader.web.openapi.results import Result

SHOWN = 50  # files in flight or failed that one answer names
LARGEST = 2**63 - 1  # the largest number that every reader of JSON has room for


def started(session: Session) -> models.Started:
    """Return the answer to start."""
    return models.Started(
        session=session.name,
        state=SessionState(session.state),
        shard=session.owner,
        folder=session.name,
        started_at=session.started_at,
    )


def stopped(session: Session) -> models.Ended:
    """Return the answer to stop."""
    return models.Ended(session=session.name, state=SessionState(session.state), shard=session.owner)


def ended(result: Result) -> models.Ended:
    """Return the answer to the stop of a session that has ended."""
    return models.Ended(session=result.session, state=SessionState.ENDED, shard=result.shard)


def answer(asked: models.ShardStatus, sessions: list[tuple[Session, Inventory]]) -> models.Status:
    """Return the answer to status: these sessions, and this shard as the only shard that was asked."""
    return models.Status(sessions=[_session(session, files) for session, files in sessions], shards=[asked])


def shard(
    ordinal: int,
    running: list[str],
    room: int,
    store: Destination | None,
    waits_for: str | None,
    unreadable: dict[str, str],
) -> ShardStatus:
    """Return what a shard says of itself. `room`: sessions that may still be started; `waits_for`: why none is sent.

    `unreadable`: sessions that it cannot take up, and why.
    """
    given: dict[str, Any] = {"waits_for": waits_for} if waits_for else {}
    if unreadable:
        given["unreadable"] = [
            models.Unreadable(shown(name), shown(reason)) for name, reason in sorted(unreadable.items())
        ]
    if store:
        given["store"] = models.Store(endpoint=store.endpoint, container=store.container, prefix=store.prefix)
    return ShardStatus(shard=ordinal, reachable=True, sessions=running, version=VERSION, room=room, **given)


def of_result(asked: models.ShardStatus, result: Result) -> models.Status:
    """Return the answer about a session that has ended."""
    return models.Status(
        sessions=[
            models.SessionStatus(
                session=result.session,
                state=SessionState.ENDED,
                shard=result.shard,
                started_at=result.began,
                files=models.Files(0, 0, result.files.sent, result.files.left_behind, result.files.replaced),
                bytes=models.Bytes(result.bytes, result.bytes),
                rate_bytes_per_s=0,
                eta_s=None,
                current=[],
                last_error=None,
                result=result,
                extensions=result.extensions,
            )
        ],
        shards=[asked],
    )


def _session(session: Session, files: Inventory) -> models.SessionStatus:
    now = files.snapshot(SHOWN)
    left = now.bytes_total - now.bytes_uploaded
    return models.SessionStatus(
        session=session.name,
        state=SessionState(session.state),
        shard=session.owner,
        started_at=session.started_at,
        files=models.Files(now.waiting, now.uploading, now.completed, now.failed, now.replaced),
        bytes=models.Bytes(min(now.bytes_uploaded, LARGEST), min(now.bytes_total, LARGEST)),
        rate_bytes_per_s=round(now.rate),
        eta_s=min(round(left / now.rate), LARGEST) if now.rate > 0 and left > 0 else None,
        current=now.current,
        last_error=now.last_error,
        extensions=None if session.extensions is None else list(session.extensions),
    )

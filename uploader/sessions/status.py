"""The answers about sessions. Counters begin when a process takes a session up, with the `.completed` files there."""

from uploader.backlog.inventory import Inventory
from uploader.session import Session
from uploader.web.openapi import models

SHOWN = 50  # files in flight or failed that one answer names


def started(session: Session) -> models.Started:
    """Return the answer to start."""
    return models.Started(
        session=session.name,
        state=session.state,
        shard=session.owner,
        folder=session.name,
        started_at=session.started_at,
    )


def ended(session: Session) -> models.Ended:
    """Return the answer to stop."""
    return models.Ended(session=session.name, state=session.state, shard=session.owner)


def answer(shard: int, sessions: list[tuple[Session, Inventory]], waits_for: str | None = None) -> models.Status:
    """Return the answer to status: these sessions, and this shard as the only shard that was asked.

    `waits_for`: what keeps the store from being reached.
    """
    asked = models.ShardStatus(shard=shard, reachable=True, sessions=[session.name for session, _ in sessions])
    if waits_for:
        asked = models.ShardStatus(**asked.model_dump(exclude_unset=True), waits_for=waits_for)
    return models.Status(sessions=[_session(session, files) for session, files in sessions], shards=[asked])


def _session(session: Session, files: Inventory) -> models.SessionStatus:
    now = files.snapshot(SHOWN)
    left = now.bytes_total - now.bytes_uploaded
    return models.SessionStatus(
        session=session.name,
        state=session.state,
        shard=session.owner,
        started_at=session.started_at,
        files=models.Files(now.waiting, now.uploading, now.completed, now.failed),
        bytes=models.Bytes(now.bytes_uploaded, now.bytes_total),
        rate_bytes_per_s=round(now.rate),
        eta_s=round(left / now.rate) if now.rate > 0 and left > 0 else None,
        current=now.current,
        last_error=now.last_error,
    )

"""The answers about sessions. Counters describe a session since this process took it up, as far as the disk tells."""

from dataclasses import asdict
from typing import Any

from uploader.backlog.inventory import Files
from uploader.session import Session
from uploader.telemetry.text import shown

SHOWN = 50  # files in flight or failed that one answer names


def started(session: Session) -> dict[str, Any]:
    """Return the answer to start."""
    return {
        "session": session.session,
        "state": session.state,
        "shard": session.owner,
        "folder": session.session,
        "started_at": session.started_at,
    }


def ended(session: Session) -> dict[str, Any]:
    """Return the answer to stop."""
    return {"session": session.session, "state": session.state, "shard": session.owner}


def answer(shard: int, sessions: list[tuple[Session, Files]]) -> dict[str, Any]:
    """Return the answer to status: these sessions, and this shard as the one that was asked."""
    described = [_session(session, files) for session, files in sessions]
    names = [session.session for session, _ in sessions]
    return {"sessions": described, "shards": [{"shard": shard, "reachable": True, "sessions": names}]}


def _session(session: Session, files: Files) -> dict[str, Any]:
    now = files.snapshot(SHOWN)
    left = now.bytes_total - now.bytes_uploaded
    return {
        "session": session.session,
        "state": session.state,
        "shard": session.owner,
        "started_at": session.started_at,
        "files": {
            "waiting": now.waiting,
            "uploading": now.uploading,
            "completed": now.completed,
            "failed": now.failed,
        },
        "bytes": {"uploaded": now.bytes_uploaded, "total": now.bytes_total},
        "rate_bytes_per_s": round(now.rate),
        "eta_s": round(left / now.rate) if now.rate > 0 and left > 0 else None,
        "current": [asdict(one) | {"path": shown(one.path)} for one in now.current],
        "last_error": now.last_error,
    }

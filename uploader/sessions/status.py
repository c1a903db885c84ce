"""The answers about sessions. Counters describe a session since this process took it up, as far as the disk tells."""

from collections.abc import Iterator
from itertools import islice
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
    busy, known = list(files.busy.values()), list(files.known.values())
    uploaded = files.completed_bytes + sum(item.uploaded for item in busy)
    settling = sum(one.look.size for one in list(files.settling.values()))
    total = files.completed_bytes + sum(item.size for item in known) + settling
    total += sum(one.size for path, one in list(files.failures.items()) if path not in files.known)
    if files.beyond and (met := files.completed + len(known)):
        total += files.beyond * (total // met)  # those not looked at yet: taken for as large as the others
    rate = files.meter.rate()
    return {
        "session": session.session,
        "state": session.state,
        "shard": session.owner,
        "started_at": session.started_at,
        "files": {
            "waiting": files.waiting(),
            "uploading": len(busy),
            "completed": files.completed,
            "failed": len(files.failures) + len(files.kept),
        },
        "bytes": {"uploaded": uploaded, "total": max(total, uploaded)},
        "rate_bytes_per_s": round(rate),
        "eta_s": round((total - uploaded) / rate) if rate > 0 and total > uploaded else None,
        "current": list(islice(_current(files), SHOWN)),
        "last_error": files.last_error,
    }


def _current(files: Files) -> Iterator[dict[str, Any]]:
    """Files in flight first, then those that failed, with what failed of them."""
    busy = dict(files.busy)
    for path, item in busy.items():
        failure = files.failures.get(path)
        yield _file(path, item.size, item.uploaded, item.attempts + 1, failure.error if failure else None)
    for path, failure in list(files.failures.items()):
        if path not in busy:
            yield _file(path, failure.size, 0, failure.attempts, failure.error)
    for path, reason in list(files.kept.items()):
        yield _file(path, 0, 0, 0, reason)


def _file(path: str, size: int, uploaded: int, attempts: int, error: str | None) -> dict[str, Any]:
    return {"path": shown(path), "size": size, "uploaded": uploaded, "attempts": attempts, "error": error}

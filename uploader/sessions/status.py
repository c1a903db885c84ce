"""The answers about sessions. Counters describe a session since this process took it up, as far as the disk tells."""

from collections.abc import Iterator
from itertools import islice

from uploader.backlog.inventory import Files
from uploader.session import Session
from uploader.telemetry.text import shown
from uploader.web.openapi import models
from uploader.web.openapi.models import Current

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


def answer(shard: int, sessions: list[tuple[Session, Files]]) -> models.Status:
    """Return the answer to status: these sessions, and this shard as the one that was asked."""
    asked = models.ShardStatus(shard=shard, reachable=True, sessions=[session.name for session, _ in sessions])
    return models.Status(sessions=[_session(session, files) for session, files in sessions], shards=[asked])


def _session(session: Session, files: Files) -> models.SessionStatus:
    busy, known = list(files.busy.values()), list(files.known.values())
    uploaded = files.completed_bytes + sum(item.uploaded for item in busy)
    settling = sum(one.look.size for one in list(files.settling.values()))
    total = files.completed_bytes + sum(item.size for item in known) + settling
    total += sum(one.size for path, one in list(files.failures.items()) if path not in files.known)
    if files.beyond and (met := files.completed + len(known)):
        total += files.beyond * (total // met)  # those not looked at yet: taken for as large as the others
    rate = files.meter.rate()
    return models.SessionStatus(
        session=session.name,
        state=session.state,
        shard=session.owner,
        started_at=session.started_at,
        files=models.Files(files.waiting(), len(busy), files.completed, len(files.failures) + len(files.kept)),
        bytes=models.Bytes(uploaded, max(total, uploaded)),
        rate_bytes_per_s=round(rate),
        eta_s=round((total - uploaded) / rate) if rate > 0 and total > uploaded else None,
        current=list(islice(_current(files), SHOWN)),
        last_error=files.last_error,
    )


def _current(files: Files) -> Iterator[Current]:
    """Files in flight first, then those that failed, with what failed of them."""
    busy, failures = dict(files.busy), dict(files.failures)
    for path, item in busy.items():
        failure = failures.get(path)
        yield Current(shown(path), item.size, item.uploaded, item.attempts + 1, failure.error if failure else None)
    for path, failure in failures.items():
        if path not in busy:
            yield Current(shown(path), failure.size, 0, failure.attempts, failure.error)
    for path, reason in list(files.kept.items()):
        yield Current(shown(path), 0, 0, 0, reason)

"""The result of a session that ends: what was sent, and what is left behind with its reason."""

from collections.abc import Iterable

from uploader.backlog.inventory import Inventory
from uploader.session import now
from uploader.sessions.runs import Run
from uploader.share.scan import Found, Kind
from uploader.sweep.seal import Sealed
from uploader.telemetry.text import shown
from uploader.web.openapi.results import LeftBehind, Result, ResultFiles

NAMED = 1000  # files left behind that a result names
DRAINED = "it came when the session had drained"
AT_ONCE = "the session was stopped before it was sent"
NOT_KNOWN = "it was not sent before the session stopped; its shard was restarted after that, and why is not known"


def result(run: Run, sealed: Sealed, found: Iterable[Found]) -> Result:
    """Return the result; `found`: every name in the session's folder. Raises OSError."""
    session, named = run.session, list[LeftBehind]()
    left = failed = 0
    for one in found:
        if one.kind is Kind.COMPLETED:
            continue
        left += 1
        reason = _failure(run.files, one)
        failed += bool(reason)
        if len(named) < NAMED:
            named.append(LeftBehind(shown(one.path), reason or _reason(run, one)))
    return Result(
        session=session.name,
        shard=session.owner,
        began=session.started_at,
        ended=now(),
        drained=session.drained,
        files=ResultFiles(sent=sealed.files, replaced=sealed.replaced, failed=failed, left_behind=left),
        bytes=sealed.bytes,
        receipts=sealed.blob,
        left_behind=named,
        extensions=None if session.extensions is None else list(session.extensions),
    )


def _failure(files: Inventory, found: Found) -> str | None:
    known = files.failure(found.path)
    return known.error if known else None


def _reason(run: Run, found: Found) -> str:
    if found.error:
        return f"the folder cannot be read: {found.error.strerror}"
    if found.reason or run.late:
        return found.reason or NOT_KNOWN
    return DRAINED if run.session.drained else AT_ONCE

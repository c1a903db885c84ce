"""The files of one session in pages: what is known of them in memory, then those that are done, from their receipts."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import fields
from heapq import nsmallest
from typing import Any

import orjson

from uploader.backlog.inventory import Inventory
from uploader.errors import BadRequest, NotEligible, UnknownFile
from uploader.naming import COMPLETED
from uploader.share import fingerprint
from uploader.share.mount import Share
from uploader.share.paths import join, opened, split
from uploader.share.scan import Rule
from uploader.sweep.completed import Completed
from uploader.telemetry.text import shown
from uploader.web.openapi.results import FilePage, FileState, FileStatus, Receipt, Replaced, Result

ORDER = (FileState.UPLOADING, FileState.FAILED, FileState.KEPT, FileState.WAITING, FileState.DONE)
WRITTEN = "written"  # the last stage of a page: receipts that are on the share
NO_CURSOR = "after: it is not `next` of such a page"
LAST_OFFSET = 2**63 - 1  # bytes, of a file
_FIELDS = tuple(field.name for field in fields(Receipt))


def page(files: Inventory, completed: Completed, state: FileState | None, after: str | None, limit: int) -> FilePage:
    """Return at most `limit` files from a cursor on. Raises BadRequest, OSError."""
    begin, *place = _decoded(after)
    stages = [*(ORDER if state is None else (state,)), *((WRITTEN,) if state in {None, FileState.DONE} else ())]
    if begin and begin not in stages:
        raise BadRequest(NO_CURSOR)
    found: list[FileStatus] = []
    for stage in stages[stages.index(begin) if begin else 0 :]:
        start = place if stage == begin else []
        room = limit - len(found)
        if stage == WRITTEN:
            more, last = _written(files.session, completed, start, room)
        else:
            more, last = _remembered(files, completed, FileState(stage), start, room)
        found += more
        if last is not None:
            return FilePage(session=files.session, files=found, next=_encoded([stage, *last]))
    return FilePage(session=files.session, files=found, next=None)


def one(files: Inventory, completed: Completed, share: Share, rule: Rule, path: str) -> FilePage:
    """Return what is known of one file; `rule`: which names the session sends. Raises UnknownFile, OSError."""
    found = files.describe(path) or _proven(completed, files.session, path) or _receipt(completed, files.session, path)
    found = found or _on_share(share, files.session, rule, path)
    if found is None:
        raise UnknownFile(f"{files.session} has no file {shown(path)}, and no receipt of one")
    return FilePage(session=files.session, files=[found], next=None)


def left_behind(result: Result, path: str | None, state: FileState | None, after: str | None, limit: int) -> FilePage:
    """Return the files that a session which has ended left behind. Raises BadRequest, UnknownFile."""
    kept = result.left_behind
    if path is None:
        begin = _decoded(after)
        if state is FileState.DONE and result.files.sent:
            raise UnknownFile(f"{result.session} has ended; what it sent is in its receipts, {result.receipts}")
        first = begin[1] if len(begin) > 1 and isinstance(begin[1], int) else 0
        there = kept if state in {None, FileState.KEPT} else []
        end = first + limit
        more = _encoded(["left", end]) if end < len(there) else None
        there = there[first:end]
    else:
        there, more = [left for left in kept if left.path == path], None
        if not there:
            said = f"; its receipts are in {result.receipts}" if result.receipts else ""
            if len(kept) < result.files.left_behind:
                said += f"; its result names {len(kept)} of the {result.files.left_behind} files that it left behind"
                raise UnknownFile(f"{result.session} has ended and does not name {shown(path)}{said}")
            raise UnknownFile(f"{result.session} has ended and did not leave {shown(path)} behind{said}")
    listed = [FileStatus(left.path, FileState.KEPT, reason=left.reason) for left in there]
    return FilePage(session=result.session, files=listed, next=more)


def _remembered(
    files: Inventory, completed: Completed, state: FileState, start: list[Any], room: int
) -> tuple[list[FileStatus], list[Any] | None]:
    """Return files in one state in the order of their paths, and the last one's when there are more."""
    if len(start) > 1 or not all(isinstance(part, str) for part in start):
        raise BadRequest(NO_CURSOR)
    done = state is FileState.DONE
    paths = completed.proofs.unwritten_paths(files.session) if done else files.paths(state)
    begin = start[0] if start else ""
    some = nsmallest(room + 1, (path for path in paths if path > begin))
    there = some[:room]
    found = [_proven(completed, files.session, path) if done else files.describe(path) for path in there]
    last = [there[-1] if there else begin] if len(some) > room else None
    return [one for one in found if one and one.state is state], last


def _written(
    session: str, completed: Completed, start: list[Any], room: int
) -> tuple[list[FileStatus], list[Any] | None]:
    """Return receipts in the order in which they were written, and the last one's place when there may be more."""
    if len(start) not in {0, 2} or (start and not (isinstance(start[0], str) and isinstance(start[1], int))):
        raise BadRequest(NO_CURSOR)
    place = (start[0], start[1]) if start else ("", 0)
    found: list[FileStatus] = []
    for line, written in completed.receipts.lines(session, place):
        if len(found) == room:
            return found, list(place)
        found.append(_done(written))
        place = line.journal, line.end
    return found, None


def _proven(completed: Completed, session: str, path: str) -> FileStatus | None:
    proof = completed.proofs.get((session, path))
    return _done(orjson.loads(proof.receipt)) if proof else None


def _receipt(completed: Completed, session: str, path: str) -> FileStatus | None:
    last = None
    for written in completed.receipts.read(session):
        if written["path"] == path:
            last = written
    return _done(last) if last else None


def _done(written: dict[str, Any]) -> FileStatus:
    known: dict[str, Any] = {name: written.get(name) for name in _FIELDS}
    before = written.get("replaced")
    known["replaced"] = Replaced(before.get("etag", ""), before.get("snapshot")) if isinstance(before, dict) else None
    receipt = Receipt(**known)
    size = written["size"]
    return FileStatus(written["path"], FileState.DONE, size, size, written.get("attempts") or 0, receipt=receipt)


def _on_share(share: Share, session: str, rule: Rule, path: str) -> FileStatus | None:
    """Look for a file that is not remembered: beyond the queue, or completed by a process that is gone.

    A file that no scan takes is none: "waiting" would not be true of it.
    """
    folder, name = split(path)
    folders = folder.split("/") if folder else []
    if any(part.startswith(".") or rule.unfinished(part) for part in folders) or not rule.eligible(name):
        return None
    if rule.objection(path):
        return None
    for there, state in (name, FileState.WAITING), (name + COMPLETED, FileState.DONE):
        try:
            with opened(share.fd, join(session, folder)) as at:
                return FileStatus(shown(path), state, fingerprint.look(at, there).size)
        except (FileNotFoundError, NotADirectoryError, NotEligible):
            continue
    return None


def _encoded(place: list[Any]) -> str:
    text = orjson.dumps(
        [part.encode("utf-8", "surrogateescape").hex() if isinstance(part, str) else part for part in place]
    )
    return urlsafe_b64encode(text).decode().rstrip("=")


def _decoded(after: str | None) -> list[Any]:
    if after is None:
        return [None]
    try:
        parts = orjson.loads(urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        place = [
            bytes.fromhex(part).decode("utf-8", "surrogateescape") if isinstance(part, str) else _offset(part)
            for part in parts
        ]
    except (ValueError, TypeError):
        place = []
    if not place or not isinstance(place[0], str):
        raise BadRequest(NO_CURSOR)
    return place


def _offset(part: object) -> int:
    if type(part) is not int or not 0 <= part <= LAST_OFFSET:
        raise ValueError
    return part

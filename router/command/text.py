"""What people read: columns that nothing is cut from, amounts, and names that cannot write to the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Fields = dict[str, Any]
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def clean(text: object) -> str:
    """Return text whose control characters are escapes: a file's name may hold any."""
    plain = str(text)
    return plain if plain.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain)


def amount(size: float) -> str:
    """Return a number of bytes in its unit, with three digits."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return (
        f"{size:.0f} {UNITS[unit]}"
        if not unit or size >= 99.95
        else f"{size:.{1 if size >= 9.995 else 2}f} {UNITS[unit]}"
    )


def duration(seconds: float | None) -> str:
    """Return seconds as 0:42 or 1:02:03, "-" when they are not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield lines of aligned columns; the last column is not padded."""
    lines = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def progress(one: Fields) -> str:
    """Return a session's status in one line."""
    files, size = one["files"], one["bytes"]
    parts = [
        f"{one['session']} {one['state']}",
        f"{files['completed']}/{sum(files[key] for key in ('waiting', 'uploading', 'completed', 'failed'))} files",
        f"{amount(size['uploaded'])} of {amount(size['total'])}",
    ]
    if one["rate_bytes_per_s"]:
        parts.append(f"{amount(one['rate_bytes_per_s'])}/s, {duration(one['eta_s'])} left")
    if files["failed"]:
        parts.append(f"{files['failed']} failed")
    if one.get("as_of"):
        parts.append(f"as of {one['as_of']}")
    return ", ".join(parts)


def sessions(status: Fields) -> Iterator[str]:
    """Yield the status of sessions, then of the shards."""
    if status["sessions"]:
        yield from table(
            ("SESSION", "STATE", "SHARD", "SENT", "WAITING", "FAILED", "BYTES", "RATE", "LEFT", "STARTED"),
            map(_session, status["sessions"]),
        )
    else:
        yield "no session runs"
    for one in status["sessions"]:
        if error := one["last_error"]:
            yield clean(f"{one['session']}: {error['path'] or 'the session'}: {error['error']}")
        if one.get("as_of"):
            yield f"{one['session']}: its shard is away; this was known at {one['as_of']}"
    yield ""
    yield from table(("SHARD", "STATE", "SESSIONS", ""), map(_shard, status["shards"]))


def _session(one: Fields) -> tuple[object, ...]:
    files, size = one["files"], one["bytes"]
    return (
        one["session"],
        one["state"],
        one["shard"],
        files["completed"],
        files["waiting"] + files["uploading"],
        files["failed"],
        f"{amount(size['uploaded'])} of {amount(size['total'])}",
        f"{amount(one['rate_bytes_per_s'])}/s",
        duration(one["eta_s"]),
        one["started_at"],
    )


def _shard(one: Fields) -> tuple[object, ...]:
    since = f" since {one['since']}" if one.get("since") else ""
    state = "reachable" if one["reachable"] else f"away{since}"
    return one["shard"], state, ", ".join(one["sessions"]) or "-", one.get("error") or one.get("waits_for") or ""


def files(found: Iterable[Fields]) -> Iterator[str]:
    """Yield a line for each file."""
    rows = ((one["state"], amount(one["size"]), one["attempts"], one["path"], _remark(one)) for one in found)
    yield from table(("STATE", "SIZE", "ATTEMPTS", "PATH", ""), rows)


def _remark(one: Fields) -> str:
    if receipt := one["receipt"]:
        return f"sent {receipt['committed']} as {receipt['blob']}"
    again = f"; next try {one['next_try']}" if one["next_try"] else ""
    return f"{one['reason'] or ''}{again}"


def results(found: Iterable[Fields]) -> Iterator[str]:
    """Yield a line for each session that has ended."""
    head = ("SESSION", "ENDED", "SENT", "BYTES", "REPLACED", "LEFT BEHIND", "", "RECEIPTS")
    yield from table(head, map(_result, found))


def _result(one: Fields) -> tuple[object, ...]:
    files = one["files"]
    drained = "drained" if one["drained"] else "stopped at once"
    named = (one["session"], one["ended"], files["sent"], amount(one["bytes"]), files["replaced"], files["left_behind"])
    return (*named, drained, one["receipts"] or "-")


def summary(one: Fields) -> Iterator[str]:
    """Yield what became of a session that has ended, and what it has left behind."""
    files, name = one["files"], one["session"]
    ended = "" if one["drained"] else ", and was stopped at once"
    yield f"{name} has ended{ended}: {files['sent']} files sent, {amount(one['bytes'])}"
    if files["replaced"]:
        yield f"  {files['replaced']} of them replaced other content"
    if one["receipts"]:
        yield clean(f"  receipts: {one['receipts']}")
    if files["left_behind"]:
        yield f"  {files['left_behind']} files are left behind on the share, {files['failed']} of them after a failure:"
        yield from left(one["left_behind"], files["left_behind"])


def left(named: Sequence[Fields], count: int) -> Iterator[str]:
    """Yield the files that stay on the share, with their reasons; `count`: how many there are."""
    yield from (f"  {line}" for line in table(("PATH", "REASON"), ((one["path"], one["reason"]) for one in named)))
    if count > len(named):
        yield f"  ... and {count - len(named)} more"


def unended(one: Fields, stay: Sequence[Fields]) -> Iterator[str]:
    """Yield why a stopped session does not end."""
    yield f"{one['session']} has stopped, and does not end before somebody deals with the files that are kept:"
    yield from left(stay, one["files"]["failed"])


def verified(done: Fields) -> Iterator[str]:
    """Yield what the comparison with the store has found."""
    counts = ", ".join(f"{done[key]} {key}" for key in ("fine", "superseded", "missing", "changed") if done[key])
    yield f"{done['session']}: {counts or 'nothing sent'}, of {done['receipts']} receipts, in {done['container']}"
    if done["expected"] not in {None, done["receipts"]}:
        yield f"  the session's result counts {done['expected']} files sent"
    rows = ((one["blob"], one["verdict"]) for one in done["wrong"])
    yield from (f"  {line}" for line in table(("BLOB", "VERDICT"), rows) if done["wrong"])

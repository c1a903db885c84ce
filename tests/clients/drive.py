"""Drives a session with the client that openapi-python-client makes: `drive.py URL SHARE SESSION`; prints what it saw."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nfs_watch import Client
from nfs_watch.api.service import livez
from nfs_watch.api.sessions import files, results, start, status, stop
from nfs_watch.models import (
    Ended,
    FilePage,
    FileState,
    Problem,
    Receipt,
    ResultPage,
    SessionState,
    SessionStatus,
    Started,
    StartRequest,
    Status,
    StopRequest,
)

T = TypeVar("T")
url, share, name = sys.argv[1:]
client = Client(url)


def sure(kind: type[T], call: Callable[[], object]) -> T:
    """Make a call that can be repeated until a program answers it: 5xx says so, on a machine that is slow."""
    while isinstance(answer := call(), Problem) and answer.status >= 500:
        print(answer, file=sys.stderr)
        time.sleep(1)
    assert isinstance(answer, kind), answer
    return answer


started = start.sync(client=client, body=StartRequest(session=name, extensions=[".bin"]))
assert isinstance(started, Started)
again = start.sync(client=client, body=StartRequest(session=name))
assert isinstance(again, Problem)

for file, size in ("a.bin", 1000), ("b.bin", 70000):
    hidden = Path(share, started.folder, f".{file}")
    hidden.write_bytes(b"x" * size)
    hidden.rename(hidden.with_name(file))


def look(wait: int) -> SessionStatus:
    return sure(Status, lambda: status.sync(client=client, session=name, wait=wait)).sessions[0]


def receipted() -> list[Receipt]:
    page = sure(FilePage, lambda: files.sync(client=client, session=name, state=FileState.DONE))
    return [one.receipt for one in page.files if one.receipt]


while look(0).files.completed < 2:
    time.sleep(0.1)
while len(receipts := receipted()) < 2:
    time.sleep(0.1)
stopped = sure(Ended, lambda: stop.sync(client=client, body=StopRequest(session=name)))
while (ended := look(30)).state is not SessionState.ENDED:
    pass
listed = sure(ResultPage, lambda: results.sync(client=client, limit=100))
(result,) = [one for one in listed.results if one.session == name]
missing = sure(Problem, lambda: files.sync(client=client, session=name, path="nothing"))
assert ended.result
print(
    json.dumps(
        {
            "alive": livez.sync(client=client),
            "again": again.code.value,
            "missing": missing.code.value,
            "stop": stopped.state.value,
            "same start": started.started_at == ended.started_at == result.began,
            "receipts": sorted([one.blob, one.size] for one in receipts),
            "sent": result.files.sent,
            "bytes": result.bytes_,
            "drained": ended.result.drained,
            "all receipts": result.receipts is not None,
        }
    )
)

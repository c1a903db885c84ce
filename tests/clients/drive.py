"""Drives a session with the client that openapi-python-client makes: `drive.py URL SHARE SESSION`; prints what it saw."""

import json
import sys
import time
from pathlib import Path

from nfs_watch import Client
from nfs_watch.api.service import livez
from nfs_watch.api.sessions import files, results, start, status, stop
from nfs_watch.models import (
    Ended,
    FilePage,
    Problem,
    ResultPage,
    SessionState,
    Started,
    StartRequest,
    Status,
    StopRequest,
)

url, share, name = sys.argv[1:]
client = Client(url)

started = start.sync(client=client, body=StartRequest(session=name, extensions=[".bin"]))
assert isinstance(started, Started)
again = start.sync(client=client, body=StartRequest(session=name))
assert isinstance(again, Problem)

for file, size in ("a.bin", 1000), ("b.bin", 70000):
    hidden = Path(share, started.folder, f".{file}")
    hidden.write_bytes(b"x" * size)
    hidden.rename(hidden.with_name(file))


def page() -> FilePage:
    listed = files.sync(client=client, session=name)
    assert isinstance(listed, FilePage)
    return listed


def look(wait: int) -> Status:
    seen = status.sync(client=client, session=name, wait=wait)
    assert isinstance(seen, Status)
    return seen


while look(0).sessions[0].files.completed < 2:
    time.sleep(0.1)
while len(receipts := [one.receipt for one in page().files if one.receipt]) < 2:
    time.sleep(0.1)
stopped = stop.sync(client=client, body=StopRequest(session=name))
assert isinstance(stopped, Ended)
while (ended := look(30).sessions[0]).state is not SessionState.ENDED:
    pass
listed = results.sync(client=client, limit=100)
assert isinstance(listed, ResultPage)
(result,) = [one for one in listed.results if one.session == name]
missing = files.sync(client=client, session=name, path="nothing")
assert isinstance(missing, Problem)
assert ended.result is not None
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

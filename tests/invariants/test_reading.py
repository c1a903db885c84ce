"""A GET never renames, creates, writes or deletes: whatever lies on the share, and whatever is asked."""

import asyncio
import itertools
import os
from pathlib import Path

import httpx
import pytest

from tests.invariants.bed import Bed
from uploader.app import app
from uploader.sessions.service import Service
from uploader.share.mount import OWN
from uploader.web.openapi.document import document

SESSIONS = ["run", "RUN", "damaged", "unknown", "ended", "half-a-result"]
PATHS = ["x", "sent", "half", "no-such-file", "x.completed", "folder/x", ".hidden", "../run/x"]
ASKED = {
    "/v1/watch/status": [{}, *({"session": one} for one in SESSIONS)],
    "/v1/watch/files": [
        *({"session": one} for one in SESSIONS),
        *({"session": one, "state": state} for one in SESSIONS for state in ("waiting", "failed", "kept", "done")),
        *({"session": one, "path": path} for one, path in itertools.product(SESSIONS, PATHS)),
    ],
    "/v1/watch/results": [{}, {"limit": "1"}],
}
WITHOUT_QUERY = {"/livez", "/readyz", "/openapi.json"}
STREAM = "/v1/watch/events"  # never ends; its answers are those of a status of all sessions


@pytest.fixture
def share(bed: Bed, service: Service) -> Path:
    """Have all on the share that a start, a scan or a sweep would mend, end or remove; no thread does now."""
    run = service.runs["run"]
    assert run.discovery
    run.discovery.stop()
    bed.backlog.add(bed.files)
    for path in "sent", "half":
        bed.write(path, b"x")
        bed.upload(path)
    bed.completed.write_receipts(bed.files, ["sent"])
    for name in "x", "folder/x", ".hidden", "y.processing", "z.COMPLETED", "marker.completed":
        bed.write(name, b"x")
    (bed.folder / "half").hardlink_to(bed.folder / "half.completed")
    own = bed.root / OWN
    (own / "ended").mkdir()
    result = b'{"session": "%b", "shard": 0, "began": "2026-03-01T12:00:00.000Z", "ended": "2026-03-01T12:00:00.000Z", '
    result += b'"drained": true, "files": {"sent": 1, "replaced": 0, "failed": 0, "left_behind": 0}, "bytes": 1, '
    result += b'"receipts": null, "left_behind": []}'
    (own / "ended/ended.json").write_bytes(result % b"ended")
    (own / "ended/half-a-result.json").write_bytes(b"{")
    (own / "ended/.tmp-0123456789abcdef").write_bytes(b"{")
    for old in (own / "ended").iterdir():
        os.utime(old, (0, 0))
    (own / "sessions/damaged.json").write_bytes(b"{")
    (own / "sessions/.tmp-0-left").write_bytes(b"{")
    (own / "receipts/.gone-1").mkdir()
    (own / "receipts/run/0-0123456789abcdef.jsonl").write_bytes(b'{"torn')
    return bed.root


def looks(root: Path) -> dict[str, tuple[int, ...]]:
    """Return what each name is, down to its inode and the time of its last change."""
    names = [root, *root.rglob("*")]
    return {
        str(name): (look.st_ino, look.st_mode, look.st_nlink, look.st_size, look.st_mtime_ns, look.st_ctime_ns)
        for name in names
        if (look := name.lstat())
    }


def test_no_get_changes_anything_on_the_share(share: Path, service: Service) -> None:
    gets = {path for path, calls in document(router=False)["paths"].items() if "get" in calls}
    assert gets == {*ASKED, *WITHOUT_QUERY, STREAM}
    before = looks(share)
    codes: set[int] = set()

    async def ask() -> None:
        transport = httpx.ASGITransport(app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in gets - {STREAM}:
                for query in ASKED.get(path, [{}]):
                    codes.add((await client.get(path, params=query)).status_code)
                    assert looks(share) == before, (path, query)

    asyncio.run(ask())
    service.reconciled = True
    service.status_now()
    assert looks(share) == before
    assert {200, 404} <= codes

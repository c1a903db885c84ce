"""What is seen of a session that has ended: by HTTP, by the command, in the store, on the share."""

import gzip
import json
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.command.calling import call, lines, store
from tests.endpoint.store import Store
from tests.soak.account import NO_FILE, Seen, print_of
from tests.support.cluster import Cluster


def look(site: Cluster, kept: Store, session: str, receipts: str) -> Seen:
    """Ask everybody, and look at everything. `receipts`: the blob in which they have to be."""
    blobs = kept.blobs("uploads")
    waited = command(site, "wait", session, "--json", code=None)
    results = {
        "status": status(site, session)["result"],
        "results": _get(site, "results")["results"][0],
        "nfs-watch wait": lines(waited.stdout)[-1]["result"],
        "nfs-watch results": lines(command(site, "results", "--json").stdout)[0],
    }
    verified = json.loads(command(site, "verify", session, "--json", code=None, env=store(site)).stdout)
    sealed = blobs.get(receipts)
    own = (f"sessions/{session}.json", f"receipts/{session}", f"given-back/{session}")
    return Seen(
        results,
        waited.returncode,
        verified,
        lines(gzip.decompress(sealed.content).decode()) if sealed else [],
        {name: print_of(blob.content) for name, blob in blobs.items()},
        {name: blob.etag for name, blob in blobs.items()},
        files_of(site.root / session),
        [path for path in own if (site.root / ".nfs-watch" / path).exists()],
    )


def command(
    site: Cluster, *arguments: str, code: int | None = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run nfs-watch to its end; `code`: what it has to end with, None: anything."""
    done = call(site.router.url, *arguments, env=env)
    assert code in {None, done.returncode}, (arguments, done)
    return done


def status(site: Cluster, session: str) -> dict[str, Any]:
    """Return a session's status."""
    (one,) = _get(site, "status", session=session)["sessions"]
    return dict(one)


def _get(site: Cluster, what: str, **query: str) -> dict[str, Any]:
    answer = httpx.get(f"{site.router.url}/v1/watch/{what}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def names_in(folder: Path) -> list[str]:
    """List what lies below a folder, without the folders."""
    return [os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what lies below a folder, by its path: the content of files, and NO_FILE for what is none."""
    found = {name: folder / name for name in names_in(folder)}
    return {name: path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else NO_FILE for name, path in found.items()}

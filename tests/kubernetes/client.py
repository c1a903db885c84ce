"""Runs in a pod beside the shards, with the share mounted: writes files, talks to the router, checks the blobs.

python - write SESSION FIRST END SECONDS | check SESSION COUNT | left | http METHOD PATH [JSON]
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import httpx
from azure.storage.blob import ContainerClient

SHARE = Path("/share")
ROUTER = "http://nfs-watch-router:8080"
LARGE = 12 * 2**20  # more than one block


def path_of(number: int) -> str:
    return f"line-{number % 7}/{number:05}.bin"


def content(session: str, number: int) -> bytes:
    """Return a file's content, which its name determines, so that it need not be remembered."""
    size = LARGE if number % 400 == 399 else number * 37 % 20_000
    return hashlib.shake_256(f"{session}/{number}".encode()).digest(size)


def write(session: str, numbers: range, seconds: float) -> None:
    """Write the files: half are moved into place, half are written under their final name."""
    began = time.monotonic()
    for written, number in enumerate(numbers, 1):
        target = SHARE / session / path_of(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            hidden = target.with_name(f".{target.name}")
            hidden.write_bytes(content(session, number))
            hidden.rename(target)
        else:
            target.write_bytes(content(session, number))
        time.sleep(max(0, began + seconds * written / len(numbers) - time.monotonic()))


def check(session: str, count: int) -> dict[str, list[str]]:
    """Compare every blob with its file; return the names that are wrong, missing or too many. The receipts are one blob more."""
    store = ContainerClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"], "uploads")
    there = set(store.list_blob_names(name_starts_with=f"{session}/"))
    receipts = [name for name in there if name.startswith(f"{session}/.receipts/")]
    wanted = {f"{session}/{path_of(number)}": number for number in range(count)}
    right = {
        name
        for name, number in wanted.items()
        if name in there and store.download_blob(name).readall() == content(session, number)
    }
    return {
        "missing": sorted(wanted.keys() - there) + ([] if receipts else [".receipts"]),
        "wrong": sorted((wanted.keys() & there) - right),
        "extra": sorted(there - wanted.keys() - set(receipts[:1])),
    }


def left() -> list[str]:
    """List the files that are still on the share."""
    return sorted(str(path.relative_to(SHARE)) for path in SHARE.rglob("*") if path.is_file())


def ask(method: str, path: str, body: str = "") -> dict[str, object]:
    answer = httpx.request(method, ROUTER + path, content=body or None, timeout=30)
    return {"status": answer.status_code, "body": answer.json() if answer.content else None}


def main(what: str, *argv: str) -> None:
    if what == "write":
        write(argv[0], range(int(argv[1]), int(argv[2])), float(argv[3]))
    elif what == "check":
        print(json.dumps(check(argv[0], int(argv[1]))))
    elif what == "left":
        print(json.dumps(left()))
    else:
        print(json.dumps(ask(*argv)))


main(*sys.argv[1:])

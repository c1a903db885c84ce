"""The peers: azcopy and rclone, on the same files, to the same endpoint."""

import itertools
import os
from pathlib import Path

from tests.bench.endpoint import SIGNATURE, Discard
from tests.bench.measured import Measured, command

# Each run writes to names of its own, so that nothing is there already.
RUNS = itertools.count(1)


def azcopy(folder: Path, scratch: Path, endpoint: Discard, *, md5: bool) -> Measured:
    """Copy a folder's files with azcopy and its default settings."""
    env = {name: str(scratch / "azcopy") for name in ("AZCOPY_LOG_LOCATION", "AZCOPY_JOB_PLAN_LOCATION", "HOME")}
    env |= endpoint.trust | {"AZCOPY_DISABLE_SYSLOG": "true"}
    target = f"{endpoint.url}/uploads/{next(RUNS)}?{SIGNATURE}"
    argv = [os.environ["AZCOPY"], "copy", f"{folder}/*", target, "--from-to=LocalBlob", "--log-level=NONE"]
    argv += ["--output-level=essential", f"--put-md5={str(md5).lower()}"]
    return command(argv, env, scratch / "azcopy.log", *size(folder))


def rclone(folder: Path, scratch: Path, endpoint: Discard, *, md5: bool) -> Measured:
    """Copy a folder's files with rclone, 16 transfers at once."""
    argv = ["rclone", "copy", str(folder), f":azureblob:uploads/{next(RUNS)}", "--config", "", "--transfers", "16"]
    argv += ["--azureblob-sas-url", f"{endpoint.url}?{SIGNATURE}", "--stats", "0"]
    argv += [] if md5 else ["--azureblob-disable-checksum"]
    return command(argv, endpoint.trust, scratch / "rclone.log", *size(folder))


def size(folder: Path) -> tuple[int, int]:
    """Return the number of files in a folder and their bytes."""
    sizes = [entry.stat().st_size for entry in os.scandir(folder)]
    return len(sizes), sum(sizes)

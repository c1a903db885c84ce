"""The soak: python -m tests.soak --seconds 60 --seed 1. Exits with 1 when content was lost, mixed or left over."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.soak.run import Plan, Soak


def main() -> int:
    """Run the soak in a mount namespace of its own, so that its small disk is unmounted with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--largest", type=int, default=0, help="MiB of the largest files; 0: 512 in long runs")
    parser.add_argument("--no-drops", action="store_true", help="never delete the container")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    given = parser.parse_args()
    if not os.environ.get("NFS_WATCH_SOAK_INSIDE"):
        namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        environment = {**os.environ, "NFS_WATCH_SOAK_INSIDE": "1"}
        return subprocess.run(
            [*namespace, sys.executable, "-m", "tests.soak", *sys.argv[1:]], env=environment, check=False
        ).returncode
    long = given.seconds > 200
    plan = Plan(
        seconds=given.seconds,
        seed=given.seed,
        shards=given.shards,
        largest=(given.largest or (512 if long else 12)) * 2**20,
        burst=2000 if long else 250,
        drops=not given.no_drops,
    )
    if given.folder:
        given.folder.mkdir(parents=True)
        return Soak(given.folder, plan).run()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        return Soak(Path(folder), plan).run()


if __name__ == "__main__":
    sys.exit(main())

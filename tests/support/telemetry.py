"""Runs Python code in a process of its own that has configured its telemetry as the uploader does."""

import os
import subprocess
import sys

from tests.support.programs import TOP

BEFORE = "import logging, threading, sys\nfrom uploader.telemetry import instruments as telemetry, names\ntelemetry.configure('uploader')\n"


def run(code: str, env: dict[str, str] | None = None, *, fails: bool = False) -> str:
    """Run the code with these OTEL_ variables; return its output. stderr has to stay empty."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    argv = [sys.executable, "-c", BEFORE + code]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=clean | (env or {}), cwd=TOP, timeout=120
    )
    assert not done.stderr
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout

"""The arguments of both programs: --help and --version. All settings are environment variables."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from uploader.version import VERSION

SETTINGS = "All settings are environment variables (NFS_WATCH_..., AZURE_..., OTEL_...): see docs/operations.md."


class Arguments(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Write the sentence to stderr and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; there are only --help and --version, settings are in the environment\n")


def read(program: str, about: str, arguments: Sequence[str]) -> None:
    """Return when there is no argument. Raises SystemExit: 0 after --help and --version, 2 for any other argument."""
    parser = Arguments(prog=f"python -m {program}", description=about, epilog=SETTINGS, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"nfs-watch {program} {VERSION}")
    parser.parse_args(arguments)

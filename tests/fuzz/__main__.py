"""A campaign: python -m tests.fuzz --seconds 600 --seed 1. Ends with 1 when the machine, an input or a call fails.

Each round is a run of pytest with its own seed: the campaign's seed, then one more each time.
"""

import argparse
import itertools
import random
import subprocess
import sys
import time

CONTRACT = "tests/web/test_contract.py::test"
TESTS = [
    "tests/fuzz/test_machine.py::test_whatever_happens_in_whatever_order_nothing_is_lost",
    "tests/fuzz/test_inputs.py",
    f"{CONTRACT}_schemathesis_finds_no_call_that_breaks_the_contract",
    f"{CONTRACT}_the_documented_pattern_of_names_is_the_rule",
    f"{CONTRACT}_the_documented_pattern_of_extensions_is_the_rule",
]


def main() -> int:
    """Run rounds until the time is over; the last round is finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    until = time.monotonic() + given.seconds
    for seed in itertools.count(given.seed):
        if not passes(seed):
            print(f"failed with seed {seed}; to repeat it: make fuzz SECONDS=1 SEED={seed}")
            return 1
        if time.monotonic() >= until:
            print(f"passed with the seeds {given.seed} to {seed}")
            return 0
    raise AssertionError


def passes(seed: int) -> bool:
    """Run all tests with this seed; return whether they pass."""
    drawn = ["--hypothesis-profile", "campaign", "--hypothesis-seed", str(seed)]
    argv = [sys.executable, "-m", "pytest", *TESTS, *drawn, "--exitfirst", "--durations", "0", "-p", "no:cacheprovider"]
    return subprocess.run(argv, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

"""What `make test` and `make check` report: failures, skips, crashes, files that cannot be collected, started programs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests import judge
from tests.judge import PYTEST, Part
from tests.support.programs import TOP

PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert 1 == 2\n"
SKIPS = "import pytest\ndef test_skips(): pytest.skip('no such device')\n"
CRASHES = "import os\ndef test_crashes(): os._exit(3)\n"
UNREADABLE = "import nothing_of_this_name\n"
LEAVES = (
    "import pytest\n@pytest.fixture\ndef it():\n    yield\n    raise OSError('in use')\ndef test_leaves(it): pass\n"
)
MEETS = """
import pathlib, time
def test_meets():
    pathlib.Path({mine!r}).touch()
    while not pathlib.Path({other!r}).exists():
        time.sleep(0.01)
"""
UNTOLD = "import pytest\ndef test_ends(): pytest.exit('enough', 7)\n"


def part(tmp_path: Path, name: str, text: str, *options: str) -> Part:
    """Make a part of one file."""
    (folder := tmp_path / name).mkdir()
    (folder / f"test_{name}.py").write_text(text)
    own = ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", str(TOP / "pyproject.toml"), *options]
    return Part(name, [*PYTEST, *own, str(folder)])


def judged(*parts: Part, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run the parts; return the exit code and the lines of the summary."""
    code = judge.main(parts)
    lines = capfd.readouterr().out.splitlines()
    return code, lines[next(i for i, line in enumerate(lines) if "summary of all parts" in line) + 1 :]


def test_all_passed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run without failures ends with 0 and one line of counts."""
    assert judged(part(tmp_path, "one", PASSES), capfd=capfd) == (0, ["1 passed, 0 failed, 0 skipped"])


def test_a_failure_hides_nothing_that_comes_after_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All parts run, and each failure and skip is listed with the command that repeats it."""
    parts = [Part("lint", ["false"], tests=False), part(tmp_path, "one", FAILS), part(tmp_path, "two", PASSES + SKIPS)]
    code, lines = judged(*parts, capfd=capfd)
    assert code == 1
    assert lines == [
        "SKIPPED two/test_two.py::test_skips: no such device",
        "    .venv/bin/python -m pytest two/test_two.py::test_skips",
        "FAILED lint: ended with 1",
        "    false",
        "FAILED one/test_one.py::test_fails: assert 1 == 2",
        "    .venv/bin/python -m pytest one/test_one.py::test_fails",
        "1 passed, 2 failed, 1 skipped",
    ]


def test_a_part_beside_the_others_runs_with_them_and_speaks_after_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The test in each part ends when the other is there; its failure is listed as any other."""
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    beside = replace(part(tmp_path, "beside", MEETS.format(mine=there, other=here) + FAILS), beside=True)
    code = judge.main([beside, part(tmp_path, "one", MEETS.format(mine=here, other=there))])
    said = capfd.readouterr().out
    assert code == 1
    assert said.index("--- one") < said.index("--- beside") < said.index("FAILED beside/test_beside.py::test_fails")
    assert said.splitlines()[-1] == "2 passed, 1 failed, 0 skipped"


def test_the_slowest_files_are_named_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Set-up, call and tear-down of all tests of a file count together."""
    slow = "import time\nimport pytest\n@pytest.fixture\ndef it():\n    time.sleep(1)\ndef test_waits(it): pass\n"
    assert judge.main([part(tmp_path, "one", PASSES), part(tmp_path, "two", slow)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[lines.index("--- slowest files") + 1].endswith(" s two/test_two.py")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        pytest.param(CRASHES + PASSES, ["-n1"], "worker 'gw0' crashed while running", id="a worker that dies"),
        pytest.param(CRASHES, [], "ended with 3", id="pytest that dies"),
        pytest.param(UNREADABLE, [], "No module named 'nothing_of_this_name'", id="a file that cannot be collected"),
        pytest.param(UNREADABLE, ["-n1"], "No module named 'nothing_of_this_name'", id="nor by a worker"),
        pytest.param(LEAVES, [], "in use", id="a tear-down"),
        pytest.param(PASSES + UNTOLD, [], "ended with 7", id="a run that ends early"),
        pytest.param(PASSES, ["-k", "nothing"], "ended with 5", id="no test at all"),
        pytest.param(SKIPS, [], "no test was run", id="nothing but skips"),
        pytest.param(PASSES, ["--no-such-option"], "ended with 4", id="options that pytest refuses"),
    ],
)
def test_it_is_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, options: list[str], said: str
) -> None:
    """Whatever kept tests from running must not look like success."""
    code, lines = judged(part(tmp_path, "one", text, *options), capfd=capfd)
    assert code == 1
    assert any(line.startswith("FAILED") and said in line for line in lines), lines
    assert ", 1 failed, " in lines[-1]


STARTS = [
    "import subprocess, sys\ndef test_it(): subprocess.run([sys.executable, '-c', ''])\n",
    "import os\ndef test_it(): os.system('true')\n",
    "import os\ndef test_it(): os.fork() or os._exit(0)\n",
    "import multiprocessing\ndef test_it(): multiprocessing.get_context('spawn').Process(target=print).start()\n",
    "import subprocess, pytest\n@pytest.fixture(scope='module')\ndef it(): subprocess.run(['true'])\ndef test_it(it): pass\n",
]


@pytest.mark.parametrize("text", STARTS, ids=["subprocess", "system", "fork", "multiprocessing", "a fixture"])
@pytest.mark.parametrize("options", [[], ["-n1"]], ids=["alone", "with workers"])
def test_what_starts_a_program_is_no_part_of_a_check(tmp_path: Path, text: str, options: list[str]) -> None:
    """It is skipped with the reason, and the test beside it runs."""
    one = part(tmp_path, "one", text + PASSES, "-p", "tests.no_programs", *options)
    done = subprocess.run(one.command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starts a program: left to make test" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout

"""The version stands in uploader/version.py; every other place agrees, and both programs tell it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import TOP
from uploader import arguments
from uploader.version import VERSION
from uploader.web.openapi.document import document

PROGRAMS = ("uploader", "router")
# The text before a version: an image's tag, kustomize's newTag, the image's label, Kubernetes' version label.
SAID = re.compile(r'(?:localhost/nfs-watch:|newTag: *|image\.version=|app\.kubernetes\.io/version: *)"?(\d+(?:\.\w+)+)')


def versions(file: Path) -> set[str]:
    return set(SAID.findall(file.read_text()))


@pytest.mark.parametrize("place", ["Dockerfile", "k8s/base/kustomization.yaml", "docs/deploy.md"])
def test_these_places_say_the_version(place: str) -> None:
    """A release that forgot one of them would start the old image."""
    assert versions(TOP / place) == {VERSION}


def test_no_other_place_says_another_version() -> None:
    """Any page, manifest or build file."""
    files = [*TOP.glob("*.md"), TOP / "Makefile", TOP / "Dockerfile", TOP / "pyproject.toml"]
    files += [
        path for folder in ("k8s", "docs") for path in (TOP / folder).rglob("*") if path.suffix in {".md", ".yaml"}
    ]
    wrong = {str(file.relative_to(TOP)): found for file in files if (found := versions(file) - {VERSION})}
    assert not wrong


@pytest.mark.parametrize("router", [True, False])
def test_the_contract_is_of_this_version(router: bool) -> None:
    """A client can see which release it talks to."""
    assert document(router=router)["info"]["version"] == VERSION


def test_the_changelog_begins_with_what_is_unreleased_and_names_this_version_or_an_older_one() -> None:
    """Newest first. A release empties `Unreleased`; the next change there needs the next version."""
    text = (TOP / "CHANGELOG.md").read_text()
    first, *numbered = re.findall(r"^## (.+?)(?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert first == "Unreleased"
    ranks = [tuple(map(int, version.split("."))) for version in numbered]
    assert ranks == sorted(ranks, reverse=True)
    unreleased = text.partition("## Unreleased")[2].partition("\n## ")[0].strip()
    released = ranks[0] == tuple(map(int, VERSION.split(".")))
    assert released != bool(unreleased), f"{VERSION} is released and so nothing is unreleased, or neither"


def run(program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, *argv], capture_output=True, text=True, cwd=TOP, env={}, check=False
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_tells_its_version_without_any_setting(program: str) -> None:
    """An operator can ask an image for its version before it is configured."""
    done = run(program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nfs-watch {program} {VERSION}\n", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_refuses_an_argument_in_one_sentence(program: str) -> None:
    """The refusal comes before the settings are read, which are all missing here."""
    done = run(program, "--port=8081")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"python -m {program}: [^\n]*--port=8081[^\n]*\n", done.stderr)


@pytest.mark.parametrize("argv", [["--port"], ["run-42"], ["--version=1"], ["--vers"], ["-x"], ["--", "a"]])
def test_what_is_no_argument_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt option is not ignored."""
    with pytest.raises(SystemExit) as ended:
        arguments.read("uploader", "About.", argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_says_where_the_settings_are(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """There are no options for settings: --help names the page that lists the variables."""
    with pytest.raises(SystemExit) as ended:
        arguments.read("uploader", "About.", argv)
    assert not ended.value.code
    text = " ".join(capsys.readouterr().out.split())
    assert "About." in text
    assert "environment variables" in text
    assert "docs/operations.md" in text


def test_without_arguments_the_program_goes_on() -> None:
    arguments.read("uploader", "About.", [])

"""Whatever the documents name is there: files, folders, modules and what they define, and the Makefile's targets."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tokenize import COMMENT, STRING, tokenize

import pytest

from tests.support.programs import TOP

FOLDERS = ("uploader", "router", "tests", "k8s", "docs", ".github", ".ci")
DOCUMENTS = [
    *(path for path in TOP.iterdir() if path.is_file() and path.name != ".git"),
    *(path for folder in FOLDERS for path in (TOP / folder).rglob("*") if path.is_file()),
]
ENDINGS = "py|md|yaml|yml|toml|lock|txt|env|sh|json|png"
# A path, no URL and nothing in angle brackets: `sessions/records.py`, `settings.env`, `.github/workflows/ci.yml`.
FILE = re.compile(rf"(?<![\w/<>{{}}$*:@.-])(\.?[\w-][\w./-]*\.(?:{ENDINGS}))(?![\w/*-]|\.\w)")
FOLDER = re.compile(rf"(?<![\w/.-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w)")
ROOM = re.compile(r"`([a-z_]+)/`")
DOTTED = re.compile(r"(?<![\w/.-])((?:uploader|router|tests)(?:\.[A-Za-z_]\w*)+)(?![\w/-])")
DEFINED = re.compile(r"`([\w/]+\.py)` \(`(\w+)`")
TARGET = re.compile(r"(?:^|`|: )(?:env -u CI )?make ([a-z-]+)", re.MULTILINE)
# Named, and none of ours: other people's, or made by a user, a program or a step that the page describes.
FOREIGN = {"localhost/", "client.sh", "first/hello.txt", ".nfs-watch/destination.json", "destination.json"}


MADE = (".venv/", ".tools/")  # by make, and not there before


def read(document: Path) -> str:
    """All of it; of a module what is written for readers: its comments and texts."""
    if document.suffix != ".py":
        return document.read_text(errors="replace")
    with document.open("rb") as file:
        tokens = list(tokenize(file.readline))
    return "\n".join(token.string for token in tokens if token.type in {COMMENT, STRING})


def documents() -> Iterator[Path]:
    """Pages, manifests, build files and our modules; no locks, data and tests, which make up names of their own."""
    for path in DOCUMENTS:
        inside = path.relative_to(TOP).parts[0]
        if inside != "tests" and path.suffix not in {".lock", ".png", ".pyc", ".js"} and path.name != "CHANGELOG.md":
            yield path


def there(document: Path, name: str) -> bool:
    """Relative to the page, to the top, to a program or to the tests; a bare name stands for a file in any folder."""
    places = (document.parent, TOP, *(TOP / folder for folder in ("uploader", "router", "tests", "k8s")))
    return any((place / name).exists() for place in places) or ("/" not in name and name in BARE)


BARE = {path.name for path in DOCUMENTS}


def module(dotted: str) -> bool:
    """A module, a folder of modules, or what a module defines."""
    path = TOP / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    return path.parent.with_suffix(".py").exists() and defines(path.parent.with_suffix(".py"), path.name)


def defines(file: Path, name: str) -> bool:
    return re.search(rf"^\s*(?:(?:async )?def|class) {name}\b|^{name}\b", file.read_text(), re.MULTILINE) is not None


def wrong(document: Path) -> list[str]:
    """What a document names and is not there."""
    text = read(document)
    missing = [name for name in FILE.findall(text) + FOLDER.findall(text) if not there(document, name)]
    missing += [f"{name}/" for name in ROOM.findall(text) if not there(document, name)]
    missing += [name for name in DOTTED.findall(text) if not there(document, name) and not module(name)]
    missing += [f"{name} in {file}" for file, name in DEFINED.findall(text) if not shows(document, file, name)]
    missing += [f"make {name}" for name in TARGET.findall(text) if name not in targets()]
    return [name for name in missing if name not in FOREIGN and not name.startswith(MADE)]


def shows(document: Path, file: str, name: str) -> bool:
    return any(
        defines(place / file, name) for place in (document.parent, TOP, TOP / "uploader") if (place / file).exists()
    )


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read(TOP / "Makefile"), re.MULTILINE))


def test_what_the_documents_name_is_there() -> None:
    found = {str(document.relative_to(TOP)): names for document in documents() if (names := wrong(document))}
    assert not found


def test_the_design_has_the_layers_that_are_checked() -> None:
    """Row by row, from the top."""
    contracts = tomllib.loads(read(TOP / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (checked,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["uploader"]]
    table = read(TOP / "docs/design.md").partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    shown = [re.findall(r"`(\w+)(?:/|\.py)`", row) for row in rows]
    assert shown == [layer.split(" | ") for layer in checked]


@pytest.mark.parametrize(
    "text",
    [
        "see `sessions/store.py`",
        "see uploader/sessions/store.py.",
        "[how](docs/howto.md)",
        "`stored.py`",
        "tests/invariants/test_i99.py",
        "uploader/store",
        "`store/` (names)",
        "python -m tests.nothing",
        "uploader.blob.stored",
        "uploader.blob.azure.Nothing",
        "`share/claim.py` (`nothing`)",
        "`make everything`",
    ],
)
def test_a_wrong_name_is_found(tmp_path: Path, text: str) -> None:
    document = tmp_path / "page.md"
    document.write_text(text)
    assert wrong(document)

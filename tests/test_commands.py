"""The commands that docs/deploy.md and docs/nfs.md print: whole for a shell, and the page says of each whether it was run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.need import need
from tests.support.manifests import KUBECTL, build
from tests.support.programs import TOP

BLOCK = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^- (Run by [^:]+|\*\*Not run\*\*[^:]*):((?:.|\n  )*)", re.MULTILINE)
SEPARATORS = set("();|&\n")
SHELL = {"for", "done", "sleep", "export"}


def blocks(page: str) -> list[str]:
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in BLOCK.findall(read(page))]


def read(page: str) -> str:
    return (TOP / page).read_text()


def commands(block: str) -> list[str]:
    """Each command without sudo, env, assignments and kubectl's namespace; a here-document's text is none."""
    text = re.sub(r"^END\n|(?<='END'\n)(.*\n)*?(?=END\n)", "", block, flags=re.MULTILINE)
    text = re.sub(r"(^|\s)#\s.*", "", text.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if word == "do" or set(word) <= SEPARATORS:
            found.append([])
        else:
            found[-1].append(word)
    plain = [" ".join(bare(words)) for words in found]
    return [command for command in plain if command and command.split()[0] not in SHELL]


def bare(words: list[str]) -> list[str]:
    """What is run, without the words before it, and without kubectl's namespace."""
    if words[:2] == ["sudo", "-u"]:
        return bare(words[3:])
    if words and (words[0] in {"sudo", "env"} or re.match(r"\w+=", words[0])):
        return bare(words[1:])
    return [words[0], *words[3:]] if words[:2] == ["kubectl", "-n"] else words


def said(page: str) -> dict[str, list[str]]:
    """What the page says of its commands, by how they were run."""
    return {how: re.findall(r"`([^`]+)`", rest) for how, rest in SAID.findall(read(page))}


def means(how: str, entry: str, command: str) -> bool:
    """A word of what was not run is enough; else the entry is the command's beginning."""
    if how.startswith("**Not run**"):
        return any(word == entry or ("://" in entry and word.startswith(entry)) for word in command.split())
    return f"{command} ".startswith(f"{entry} ")


PAGES = ["docs/deploy.md", "docs/nfs.md"]
page = pytest.mark.parametrize("page", PAGES)


@page
def test_a_shell_takes_each_block(page: str) -> None:
    """No quote is open, and nothing to be filled in is written as a redirection."""
    assert blocks(page)
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{block}"
        assert not re.search(r"<\w+>", block), block


@page
def test_the_page_says_of_each_command_whether_it_was_run(page: str) -> None:
    """And names none that it does not print."""
    entries = [(how, entry) for how, found in said(page).items() for entry in found]
    printed = [command for block in blocks(page) for command in commands(block)]
    assert printed
    assert not [c for c in printed if not any(means(how, entry, c) for how, entry in entries)]
    assert not [entry for how, entry in entries if not any(means(how, entry, c) for c in printed)]


@page
def test_what_the_tests_are_said_to_run_stands_in_them(page: str) -> None:
    """Each word of it, so that a program that no test uses any more is found."""
    tests = "\n".join(path.read_text() for path in (TOP / "tests").rglob("*.py"))
    ran = [entry for how, found in said(page).items() if "`make" in how for entry in found]
    assert not [entry for entry in ran if not all(word in tests for word in entry.split())]


def test_every_kustomization_that_is_named_builds() -> None:
    """As `kubectl apply -k` does it; the folder `site` is the reader's own (tests/k8s/test_components.py)."""
    named = {path for page in PAGES for block in blocks(page) for path in re.findall(r"kubectl apply -k (\S+)", block)}
    assert named >= {"k8s/overlays/same-machine", "k8s/overlays/try-out", "site"}
    for path in named - {"site"}:
        assert build(TOP / path)


def test_the_certificate_becomes_a_secret_and_the_key_is_gone(tmp_path: Path) -> None:
    """The block of step 4 as it is, but for Azure's program; the cluster is asked for nothing."""
    need("openssl", "shred", KUBECTL)
    (block,) = [block for block in blocks("docs/deploy.md") if "openssl" in block]
    block = re.sub(r"^az (.*\\\n)*.*\n|^kubectl apply .*\n", "", block, flags=re.MULTILINE)
    block = block.replace("create secret", "create --dry-run=client --output=yaml secret")
    path = f"{Path(KUBECTL).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e"], input=block, cwd=tmp_path, env={"PATH": path}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    secret = yaml.safe_load(done.stdout)
    assert secret["metadata"] == {"name": "nfs-watch-azure", "namespace": "nfs-watch"}
    assert secret["data"].keys() == {"tenant-id", "client-id", "certificate.pem"}
    assert [file.name for file in tmp_path.iterdir()] == ["cert.pem"], "the key stays nowhere but in the cluster"


def test_commands_are_told_apart() -> None:
    """Whatever joins them; options of sudo and kubectl, comments and here-documents are not part of them."""
    block = """
    sudo -u '#1000' sh -c 'a && b' && curl -s x | K=v sh -s -   # note
    for i in a b; do
      buildah pull "$i" &&
        name=${i%%:*} && sudo env A="b c" make x
    done
    kubectl -n here get pod \\
      -o name
    cat >f <<'END'
    no: command
    END
    """.replace("\n    ", "\n")
    assert commands(block) == [
        "sh -c a && b", "curl -s x", "sh -s -", "buildah pull $i", "make x", "kubectl get pod -o name", "cat > f << END",
    ]  # fmt: skip

"""The contract against the real programs: schemathesis, the contract's own examples, and the rules that it gives."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cluster import Cluster, cluster
from uploader.session import NAME_RULE, check_extensions, check_name
from uploader.web.openapi.document import ERRORS, MODELS, document
from uploader.web.openapi.models import EXTENSION_PATTERN, NAME_PATTERN, Status

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("contract"), 1, max_sessions=8) as it:
        yield it


@pytest.fixture
def clean(site: Cluster) -> Iterator[Cluster]:
    """The programs with no session, before and after."""
    site.clear()
    yield site
    site.clear()


@pytest.fixture
def drawn(pytestconfig: pytest.Config) -> list[str]:
    """Choose the calls: the same in each run, unless a campaign gives a seed."""
    seed = pytestconfig.getoption("--hypothesis-seed")
    return ["--generation-deterministic"] if seed is None else ["--seed", str(seed)]


def test_schemathesis_finds_no_call_that_breaks_the_contract(site: Cluster, tmp_path: Path, drawn: list[str]) -> None:
    """Both programs at once: every documented call, valid and invalid bodies, undocumented methods."""
    runs = [_schemathesis(server.url, tmp_path / name, drawn) for name, server in _servers(site).items()]
    outputs = [run.communicate(timeout=240)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output
        cases = re.search(r"(\d+) generated, (\d+) passed", output)
        assert cases, output
        assert int(cases[1]) >= 100
        assert cases[1] == cases[2]
    site.clear()


def _servers(site: Cluster) -> dict[str, Any]:
    return {"shard": site.shards[0], "router": site.router}


def _schemathesis(url: str, folder: Path, drawn: list[str]) -> subprocess.Popen[str]:
    folder.mkdir()
    # 503 is a documented answer ("shard": 7 where there is one shard); 500 and 502 are failures.
    (folder / "schemathesis.toml").write_text(
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 503]\n'
    )
    argv = [str(SCHEMATHESIS), "run", f"{url}/openapi.json", "--max-examples", "10", "--no-color", "--checks", "all"]
    # An integer written as 1.0 is valid JSON Schema and refused here; a shard that does not exist is a 400 too.
    argv += ["--exclude-checks", "positive_data_acceptance"]
    # The stream never ends by itself: it is looked at below.
    argv += ["--exclude-path", "/v1/watch/events", "--no-shrink", *drawn]
    # `wait` makes an answer take up to 60 s: these bound a hang only.
    argv += ["--request-timeout", "120", "--max-response-time", "120"]
    return subprocess.Popen(argv, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("page", [True, False])
def test_every_example_in_the_document_is_what_its_schema_says(*, page: bool) -> None:
    """A reader of the contract can copy its examples."""
    examples = list(_examples(document(router=page)))
    assert len(examples) > 15
    models = {model.__name__: model for model in MODELS}
    for model, value in examples:
        models[model].model_validate(value)


def _examples(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, list):
        for part in node:
            yield from _examples(part)
    if not isinstance(node, dict):
        return
    if "$ref" in node.get("schema", {}):
        model = node["schema"]["$ref"].rpartition("/")[2]
        yield from ((model, one["value"]) for one in node.get("examples", {}).values())
        yield from ((model, node[key]) for key in ("example",) if key in node)
    for part in node.values():
        yield from _examples(part)


def test_every_error_of_a_request_stands_in_the_contract() -> None:
    """A client finds every code documented; a shard's contract leaves out the router's own."""
    router, shard = (
        {value["code"] for model, value in _examples(document(router=router)) if model == "Problem"}
        for router in (True, False)
    )
    assert router == set(ERRORS)
    assert router - shard == {"bad-shard"}


def test_a_session_asked_for_follows_the_rule_of_names() -> None:
    """The contract gives the same rule for a name in the query as in a body."""
    parameters = document(router=True)["paths"]["/v1/watch/status"]["get"]["parameters"]
    (asked,) = [one for one in parameters if one["name"] == "session"]
    assert asked["schema"]["pattern"] == NAME_PATTERN
    assert NAME_RULE in asked["description"]


def _allows(check: Callable[[Any], object], value: Any) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


def _words(letters: str) -> st.SearchStrategy[str]:
    # Not st.text(): on a fresh clone it first builds a table of all of Unicode, for some seconds.
    return st.lists(st.sampled_from(letters), max_size=8).map("".join)


@settings(max_examples=500)
@given(_words("aZ09._-/\n é"))
@example("a" * 128)
@example("a" * 129)
@example(".".join("a" * 64))
def test_the_documented_pattern_of_names_is_the_rule(name: str) -> None:
    """Whatever the contract's pattern accepts the program accepts, and nothing else."""
    documented = re.fullmatch(NAME_PATTERN.rstrip("$"), name) is not None and len(name) <= 128
    assert documented == _allows(check_name, name)


@settings(max_examples=500)
@given(_words("a./\x00\x1f\x7f é"))
@example("." + "a" * 63)
@example("." + "a" * 64)
def test_the_documented_pattern_of_extensions_is_the_rule(extension: str) -> None:
    """Whatever the contract's pattern accepts the program accepts, and nothing else."""
    documented = re.fullmatch(EXTENSION_PATTERN.rstrip("$"), extension) is not None
    assert documented == _allows(check_extensions, [extension])


def test_the_router_has_a_page_and_a_shard_has_none(site: Cluster) -> None:
    for name, server in _servers(site).items():
        contract = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
        assert contract["openapi"] == "3.1.0"
        assert ("/" in contract["paths"]) == (name == "router")
        assert httpx.get(server.url, timeout=60).status_code == (200 if name == "router" else 404)


@pytest.mark.parametrize("name", ["shard", "router"])
def test_every_answer_has_a_date(site: Cluster, name: str) -> None:
    """Also probes, streams and what is no call of the contract; schemathesis looks at the other calls."""
    server = _servers(site)[name]
    codes = set()
    for method, path in [("GET", "/nothing"), ("DELETE", "/v1/watch/start"), ("GET", "/livez"), ("GET", "/readyz")]:
        response = httpx.request(method, server.url + path, timeout=60)
        assert parsedate_to_datetime(response.headers["date"]).tzinfo
        codes |= {response.json()["code"]} if response.is_error else set()
    assert codes == {"not-found", "method-not-allowed"}
    with httpx.stream("GET", f"{server.url}/v1/watch/events", timeout=60) as stream:
        assert stream.headers["date"]


@pytest.mark.parametrize("name", ["shard", "router"])
def test_the_event_stream_carries_the_status(clean: Cluster, name: str) -> None:
    """A client needs one model for both, on a shard and on the router."""
    folder = clean.start("seen")
    (folder / "a.bin").write_bytes(b"x" * 1000)
    with httpx.stream("GET", f"{_servers(clean)[name].url}/v1/watch/events", timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                status = Status.model_validate_json(line[6:])
                if status.sessions[0].files.completed:
                    break
    assert status.sessions[0].bytes.uploaded == 1000
    assert status.shards[0].sessions == ["seen"]

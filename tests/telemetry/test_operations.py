"""docs/operations.md names every setting, metric, event, error and alert, with the actual defaults."""

import re

import yaml

from router.settings import Settings as RouterSettings
from tests.support.programs import TOP
from uploader import errors
from uploader.settings import Settings
from uploader.telemetry import instruments, names

TEXT = (TOP / "docs/operations.md").read_text()
ROWS = {
    name: [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| `")
    for name in re.findall(r"`([^`]+)`", line.split("|")[1])
}


def test_every_setting_is_there_with_its_default() -> None:
    """An operator can rely on the table without reading code."""
    for kind in (Settings, RouterSettings):
        for name, field in kind.model_fields.items():
            variable = field.validation_alias or f"NFS_WATCH_{name.upper()}"
            assert variable in ROWS, variable
            default = ROWS[str(variable)][1].strip("`")
            if isinstance(field.default, bool):
                assert default == str(field.default).lower()
            elif isinstance(field.default, int | float | str) and name != "ordinal":
                assert str(field.default) in {"", *default.split(", ")} or default == "empty", variable


def test_every_test_that_is_named_exists() -> None:
    """A row of the ways to the store claims what a test shows."""
    there = {
        name for file in (TOP / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert named <= there


def test_every_event_is_there() -> None:
    """Whoever searches the log by an event finds what it means."""
    dotted = {value for key, value in vars(names).items() if key.isupper() and re.fullmatch(r"[a-z]+\.[a-z_]+", value)}
    attributes = {names.FILE_PATH, names.FILE_SIZE, names.ERROR_TYPE}
    told = {name for name in ROWS if re.fullmatch(r"[a-z]{2,}\.[a-z_]+", name)}  # `x.completed` is a file
    assert dotted - attributes == told


def test_no_event_is_made_up_in_passing() -> None:
    """Each log call uses a constant of names.py, so that the test above sees it."""
    for source in [*(TOP / "uploader").rglob("*.py"), *(TOP / "router").rglob("*.py")]:
        for said in re.findall(r"\blog\.(?:info|warning|error|exception|critical)\(\s*([^,)\s]+)", source.read_text()):
            assert not said.startswith(("'", '"', 'f"')), f"{source.name}: {said}"


def test_every_metric_is_there_and_none_that_is_not() -> None:
    """The table has exactly the metrics that exist."""
    ours = {value for key, value in vars(names).items() if key.isupper() and str(value).startswith("nfs_watch.")}
    metrics = ours - {names.SESSION, names.ATTEMPT}
    assert {name for name in ROWS if name.startswith("nfs_watch.")} == metrics
    assert instruments.GAUGES.keys() <= metrics


def test_every_error_of_a_file_is_there() -> None:
    """The operator finds what to do about each error.type."""

    def below(kind: type[Exception]) -> set[str]:
        return {kind.__name__}.union(*(below(one) for one in kind.__subclasses__()))

    # Two are never raised themselves; the third is no failure; whoever asks for a list handles the fourth, and the
    # sweeper the fifth: its other thread reads the file.
    silent = {"FileError", "StoreError", "Vanished", "ListRefused", "LargeRead"}
    assert below(errors.FileError) - silent <= ROWS.keys()


def test_every_alert_is_there() -> None:
    """Whoever is called by an alert finds what to do."""
    groups = yaml.safe_load((TOP / "k8s/alerts.yaml").read_text())["groups"]
    told = {name for name in ROWS if name.startswith("NfsWatch")}
    assert {rule["alert"] for group in groups for rule in group["rules"]} == told

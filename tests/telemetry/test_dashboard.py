"""The dashboard's and the alerts' queries, against the names that the OpenTelemetry collector makes of our metrics."""

import itertools
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes_validate.utils import validate

from tests.need import need
from tests.support.manifests import K8S, build
from tests.support.programs import Server, free_port
from tests.support.receiver import over_http
from tests.support.telemetry import run

DASHBOARD = json.loads((K8S / "grafana/dashboard.json").read_text())
ALERTS = K8S / "alerts.yaml"
OPERATIONS = (K8S.parent / "docs/operations.md").read_text()
RULES = {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
UNITS = {"By": "bytes", "s": "seconds"}
TOUCH = """
from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram
for instrument in vars(telemetry).values():
    if isinstance(instrument, Counter): instrument.add(1)
    if isinstance(instrument, Histogram): instrument.record(1.0)
telemetry.failed(ValueError("x"))
telemetry.answered("put_blob", 1.0)
telemetry.refused("put_blob", 503, "ServerBusy")
telemetry.ended(drained=True, left_behind=1)
telemetry.observe(lambda: dict.fromkeys(telemetry.GAUGES, 1.0))
telemetry.gauges(telemetry.ROUTERS, lambda: dict.fromkeys(telemetry.ROUTERS, 1.0))
metrics.get_meter_provider().force_flush(60_000)
"""
SHARDS = ("nfs-watch-0", "nfs-watch-1")
STEP, SAMPLES = 15, 60
VALUES = {"error_type": "StoreAway", "operation": "put_blob", "status": "503", "code": "ServerBusy", "drained": "true"}


def translated(metric: Any) -> list[str]:
    """Return the series of a metric as github.com/prometheus/otlptranslator, which the exporter uses, names them.

    Dots become underscores; the unit is appended, {annotations} are not; monotonic sums end in _total.
    """
    kind = metric.WhichOneof("data")
    parts = [re.sub(r"[^a-zA-Z0-9]+", "_", metric.name)]
    assert metric.unit in UNITS or metric.unit.startswith("{"), metric
    parts += [UNITS[metric.unit]] if metric.unit in UNITS else []
    if kind == "histogram":
        return ["_".join([*parts, suffix]) for suffix in ("bucket", "count", "sum")]
    return ["_".join([*parts, "total"] if kind == "sum" and metric.sum.is_monotonic else parts)]


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """All series that Prometheus gets of a shard, with their labels, from what the program really sends."""
    with over_http() as got:
        run(TOUCH, {"OTEL_EXPORTER_OTLP_ENDPOINT": got.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "200"})
        found: dict[str, set[str]] = {}
        for metric in got.metrics().values():
            for name in translated(metric):
                labels = {key.replace(".", "_") for about, _ in got.points(metric.name) for key in about}
                found[name] = labels | {"instance"} | ({"le"} if name.endswith("_bucket") else set())
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query of the dashboard, as Grafana sends it, and of the alerts."""
    for title, panel in PANELS.items():
        for target in panel["targets"]:
            yield title, target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
    for name, rule in RULES.items():
        yield name, rule["expr"]


def test_the_names_are_those_of_the_documentation(series: dict[str, set[str]]) -> None:
    """A reader of docs/operations.md can type these names into Prometheus."""
    assert {
        "nfs_watch_files_uploaded_total",
        "nfs_watch_content_sent_bytes_total",
        "nfs_watch_upload_duration_seconds_bucket",
        "nfs_watch_share_age_seconds",
    } <= series.keys()


def test_every_query_uses_series_and_labels_that_exist(series: dict[str, set[str]]) -> None:
    """A renamed metric would leave a panel empty and an alert silent."""
    for where, query in queries():
        used = set(re.findall(r"\bnfs_watch_\w+", query))
        assert used, where
        assert used <= series.keys(), where
        labels = set().union(*(series[name] for name in used))
        grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query)
        for label in [part.strip() for group in grouped for part in group.split(",")]:
            assert label in labels, (where, label)


def test_the_documentation_gives_each_metric_its_name_kind_and_labels(series: dict[str, set[str]]) -> None:
    """What a reader of docs/operations.md types into Prometheus is there: the name, and the labels to group by."""
    kinds = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    told: dict[str, set[str]] = {}
    for name, kind, meaning in re.findall(
        r"^\| `nfs_watch\.[^|]*\| `(\w+)` \| (\w+) \| (.*)\|$", OPERATIONS, re.MULTILINE
    ):
        labels = {re.sub(r"\W", "_", one) for one in re.findall(r"`([a-z.]+)`", meaning)} & (
            VALUES.keys() | {"outcome"}
        )
        base = name.removesuffix("_total") if kind == "counter" else name
        told |= {base + suffix: labels for suffix in kinds[kind]}
    assert told == {name: labels - {"instance", "le"} for name, labels in series.items()}


def test_every_metric_is_shown(series: dict[str, set[str]]) -> None:
    """A metric that no panel or alert uses is of no use to the operator."""
    shown = " ".join(query for _, query in queries())
    hidden = {name for name in series if not name.endswith(("_bucket", "_count", "_sum")) and name not in shown}
    assert not hidden
    for name in (name for name in series if name.endswith("_bucket")):
        assert name.removesuffix("_bucket") in shown


def samples(series: dict[str, set[str]], end: int) -> str:
    """Write all series of two shards over a quarter of an hour, each rising, as OpenMetrics."""
    text = []
    for name, labels in sorted(series.items()):
        for shard, bound in itertools.product(SHARDS, ("0.5", "1.0", "+Inf") if "le" in labels else ("",)):
            marks = [f'instance="{shard}"', 'job="nfs-watch/nfs-watch-uploader"']
            marks += [f'le="{bound}"'] if bound else []
            marks += [f'{label}="{VALUES[label]}"' for label in sorted(labels & VALUES.keys())]
            for number in range(SAMPLES):
                moment = end - (SAMPLES - 1 - number) * STEP
                text.append(f"{name}{{{','.join(marks)}}} {number * (4 if bound == '+Inf' else 2)} {moment}")
    return "\n".join([*text, "# EOF\n"])


@pytest.fixture(scope="module")
def prometheus(series: dict[str, set[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A real Prometheus that holds these samples, and the second of the last of them."""
    need("prometheus", "promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    last = int(time.time()) - 60
    (folder / "samples").write_text(samples(series, last))
    create = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(folder / "samples"), str(folder / "data")]
    subprocess.run(create, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("{}")
    port = free_port()
    argv = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    server = Server([*argv, f"--web.listen-address=127.0.0.1:{port}"], folder / "log", port)
    try:
        server.up("/-/ready")
        yield server, last
    finally:
        server.kill()


@pytest.mark.parametrize("title", PANELS)
def test_a_real_prometheus_answers_every_panel_with_numbers(prometheus: tuple[Server, int], title: str) -> None:
    """No panel shows "no data" or NaN while shards work."""
    server, last = prometheus
    for target in PANELS[title]["targets"]:
        query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        with httpx.Client(trust_env=False) as client:
            reply = client.get(f"{server.url}/api/v1/query", params={"query": query, "time": last - 30})
        assert reply.status_code == 200, reply.text
        result = reply.json()["data"]["result"]
        assert result, query
        legend = target["legendFormat"]
        if legend == "{{instance}}":
            assert {one["metric"]["instance"] for one in result} == set(SHARDS)
        for label in VALUES.keys() & set(re.findall(r"{{(\w+)}}", legend)):
            assert [one["metric"][label] for one in result] == [VALUES[label]]
        for one in result:
            assert not math.isnan(float(one["value"][1])), query


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Ids are unique, panels do not overlap, and every variable exists."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval", "__all"} <= variables


def test_the_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    """`kubectl apply -k` brings the dashboard into Grafana."""
    [document] = build(K8S / "grafana")
    validate(document, "1.35", strict=True)
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(document["data"]["dashboard.json"]) == DASHBOARD


# --- alerts: what makes them fire, what does not, and that they last as long as their cause


def shown(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"


W, U, S, F = (
    "nfs_watch_files_waiting",
    "nfs_watch_files_uploading",
    "nfs_watch_content_sent_bytes_total",
    "nfs_watch_files_uploaded_total",
)
AGE = "nfs_watch_share_age_seconds"
FREE = "nfs_watch_share_free_bytes"
STORE = "nfs_watch_store_reachable"
KNOWN, REACHABLE = "nfs_watch_shards_known", "nfs_watch_shards_reachable"
ENDS = "nfs_watch_certificate_expires_seconds"
CASES: list[tuple[str, dict[str, str], int, bool]] = [
    ("NfsWatchNoProgress", {W: "5+0x60", U: "0+0x60", S: "100+0x60", F: "1+0x60"}, 40, True),
    ("NfsWatchNoProgress", {W: "5+0x60", U: "0+0x60"}, 40, True),  # nothing was ever sent
    ("NfsWatchNoProgress", {W: "5+0x60", U: "1+0x60", S: "0+1000x60", F: "0+0x60"}, 40, False),  # one large file
    ("NfsWatchNoProgress", {W: "5+0x60", U: "0+0x60", S: "0+0x60", F: "0+1x60"}, 40, False),  # empty files
    ("NfsWatchNoProgress", {W: "0+0x60", U: "0+0x60", S: "0+0x60", F: "0+0x60"}, 40, False),  # nothing to do
    ("NfsWatchNoProgress", {W: "5+0x60", U: "0+0x60", S: "100+0x60", F: "1+0x60"}, 9, False),  # not for long
    ("NfsWatchFilesFail", {"nfs_watch_files_failing": "1+0x60"}, 25, True),
    ("NfsWatchFilesFail", {"nfs_watch_files_failing": "1+0x10 0+0x50"}, 25, False),
    ("NfsWatchBacklogGrows", {W: "200+10x120"}, 100, True),
    ("NfsWatchBacklogGrows", {W: "0+0x30 90000-500x100"}, 100, False),  # a burst that is worked off
    ("NfsWatchBacklogGrows", {W: "1+0x120"}, 100, False),
    ("NfsWatchShareSlow", {AGE: "1+0x10 15 1+0x10"}, 12, True),
    ("NfsWatchShareSlow", {AGE: "1+0x30"}, 12, False),
    ("NfsWatchCertificateExpires", {ENDS: f"{30 * 86400 + 1000}+0x30"}, 30, True),  # promtool's time begins at 0
    ("NfsWatchCertificateExpires", {ENDS: f"{30 * 86400 + 1000}+0x30"}, 15, False),
    ("NfsWatchShareFull", {FREE: "100000000+0x90"}, 90, True),  # as long as it lasts
    ("NfsWatchShareFull", {FREE: "2000000000+0x30"}, 30, False),
    ("NfsWatchStoreAway", {STORE: "0+0x90"}, 90, True),
    ("NfsWatchStoreAway", {STORE: "0+0x5 1+0x30"}, 20, False),
    ("NfsWatchShardNotReachable", {KNOWN: "2+0x200", REACHABLE: "2+0x10 1+0x190"}, 190, True),  # for hours
    ("NfsWatchShardNotReachable", {KNOWN: "2+0x90", REACHABLE: "2+0x10 1+0x5 2+0x60"}, 40, False),
    ("NfsWatchShardGone", {AGE: "1+0x20 _x60", KNOWN: "1+0x90"}, 45, True),
    ("NfsWatchShardGone", {AGE: "1+0x90", KNOWN: "1+0x90"}, 45, False),
    ("NfsWatchShardGone", {AGE: "1+0x90", KNOWN: "2+0x20 1+0x70"}, 45, False),  # scaled down on purpose
    ("NfsWatchRouterGone", {AGE: "1+0x60"}, 15, True),
    ("NfsWatchRouterGone", {KNOWN: "2+0x60"}, 15, False),
    ("NfsWatchAllGone", {}, 15, True),
    ("NfsWatchAllGone", {AGE: "1+0x60"}, 15, False),
    # Once, and over: what lasts a moment does not ring.
    ("NfsWatchFilesFail", {"nfs_watch_files_failing": "0+0x10 3+0x2 0+0x80"}, 32, False),
    ("NfsWatchStoreAway", {STORE: "1+0x10 0 1+0x80"}, 21, False),
    ("NfsWatchShardNotReachable", {KNOWN: "2+0x90", REACHABLE: "2+0x10 1+0x2 2+0x80"}, 23, False),  # a pod was replaced
    ("NfsWatchNoProgress", {W: "0+0x10 5 0+0x80", U: "0+0x90", S: "100+0x90", F: "1+0x90"}, 25, False),
    ("NfsWatchShareFull", {FREE: "2000000000+0x10 1 2000000000+0x80"}, 22, False),
]
LONG = 40  # times that a cause comes and goes in the cases below
WEEK = 7 * 24 * 60  # minutes
# The cause lasts, but what is measured of it does not stand still: the alert has to stay from this minute on.
LASTING: dict[str, tuple[str, dict[str, str], int, int]] = {
    "files wait, and the shard is restarted every 12 minutes": (
        "NfsWatchNoProgress",
        {W: "5+0x10 0 " * LONG, U: "0+0x480", S: "0+0x480", F: "0+0x480"},
        30,
        400,
    ),
    "files fail, and the shard is restarted every 12 minutes": (
        "NfsWatchFilesFail",
        {"nfs_watch_files_failing": "3+0x9 0+0x1 " * LONG},
        30,
        400,
    ),
    "the backlog grows, and the shard was restarted": (
        "NfsWatchBacklogGrows",
        {W: "200+10x119 0 1400+10x400"},
        100,
        400,
    ),
    "the share is slow every quarter of an hour": ("NfsWatchShareSlow", {AGE: "15 1+0x12 " * LONG}, 1, 400),
    "the share hangs, until the shard has ended and its successor waits for the mount": (
        "NfsWatchShareSlow",
        {AGE: "1+0x10 12 22 _x60"},
        11,
        22,  # NfsWatchShardNotReachable rings since the tenth minute after the end
    ),
    "the share is full, and a little room comes and goes": (
        "NfsWatchShareFull",
        {FREE: "1+0x3 2000000000 " * 80},
        16,
        350,
    ),
    "the store answers questions and takes no file": ("NfsWatchStoreAway", {STORE: "0 1+0x2 " * 100}, 16, 350),
    "a shard crashes again and again": (
        "NfsWatchShardNotReachable",
        {KNOWN: "2+0x400", REACHABLE: "1+0x3 2 " * 80},
        16,
        350,
    ),
    "a shard is silent for a week": (
        "NfsWatchShardGone",
        {AGE: f"1+0x20 _x{WEEK}", KNOWN: f"1+0x{WEEK}"},
        40,
        WEEK - 10,
    ),
    "the router is silent for a week": ("NfsWatchRouterGone", {AGE: f"1+0x{WEEK}"}, 15, WEEK - 10),
    "no shard reports for a week": ("NfsWatchAllGone", {KNOWN: f"1+0x{WEEK}"}, 15, WEEK - 10),
    "the certificate has expired": ("NfsWatchCertificateExpires", {ENDS: f"60+0x{WEEK}"}, 15, WEEK - 10),
}


@pytest.mark.parametrize(("alert", "given", "minute", "fires"), CASES)
def test_an_alert_fires_when_it_should_and_only_then(
    tmp_path: Path, alert: str, given: dict[str, str], minute: int, fires: bool
) -> None:
    """Each alert against series of both kinds, as promtool evaluates them."""
    need("promtool")
    labels = {"instance": SHARDS[0], "job": "nfs-watch/nfs-watch-uploader"}
    rule = {"alertname": alert, "alertstate": "firing", "severity": RULES[alert]["labels"]["severity"]}
    kept = {} if re.search(r"absent|count\(", RULES[alert]["expr"]) else labels
    expected = [{"labels": shown("ALERTS", rule | kept), "value": 1}] if fires else []
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": shown(name, labels), "values": values} for name, values in given.items()],
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertname="{alert}",alertstate="firing"}}',
                        "eval_time": f"{minute}m",
                        "exp_samples": expected,
                    }
                ],
            }
        ],
    }
    judged(tmp_path, test)


@pytest.mark.parametrize("cause", LASTING)
def test_an_alert_lasts_as_long_as_its_cause(tmp_path: Path, cause: str) -> None:
    """An alert that ends by itself says that all is well: it may only do so when all is well."""
    need("promtool")
    alert, given, first, last = LASTING[cause]
    labels = {"instance": SHARDS[0], "job": "nfs-watch/nfs-watch-uploader"}
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": shown(name, labels), "values": values.strip()} for name, values in given.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(max_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[1s]))',
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                    for minute in range(first, last, max(1, (last - first) // 150))
                ],
            }
        ],
    }
    judged(tmp_path, test)


def test_every_alert_has_a_case_in_which_its_cause_lasts() -> None:
    """A new alert has to be asked whether it falls silent while its cause lasts; one says it by itself."""
    asked = {alert for alert, *_ in LASTING.values()}
    assert asked == RULES.keys()


def judged(folder: Path, test: dict[str, Any]) -> None:
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(folder / "test.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]

"""The certificate's end as a metric: an operator learns of it a month before uploads stop."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from tests.support.programs import azurite, shard, wait_for
from tests.support.receiver import over_http
from uploader.blob.certificate import VARIABLE, expires
from uploader.telemetry import names

END = datetime(2031, 5, 17, 12, 0, tzinfo=UTC)


def pem(folder: Path, not_after: datetime = END) -> Path:
    """Write key and certificate as docs/deploy.md puts them together."""
    made = trustme.CA().issue_cert("nfs-watch.example", not_after=not_after, not_before=END - timedelta(days=3000))
    file = folder / "certificate.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


def test_the_end_is_that_of_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key stands before it, the authority's after it."""
    monkeypatch.setenv(VARIABLE, str(pem(tmp_path)))
    assert expires() == END.timestamp()


@pytest.mark.parametrize("content", [None, b"", b"no certificate", base64.b64encode(b"x" * 99)])
def test_what_is_no_certificate_has_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """Neither a missing file nor another format ends the program here."""
    if content is not None:
        (tmp_path / "certificate.pem").write_bytes(content)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "certificate.pem"))
    assert expires() is None


def test_without_a_certificate_there_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workload identity and connection strings have none."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert expires() is None


def test_a_shard_reports_the_end_of_its_certificate(tmp_path: Path) -> None:
    """The real program pushes it as a gauge; the alert compares it with Prometheus' clock."""
    (root := tmp_path / "share").mkdir()
    with azurite(tmp_path) as connection, over_http() as got:
        server = shard(tmp_path, root, connection)
        server.env |= {VARIABLE: str(pem(tmp_path)), "OTEL_EXPORTER_OTLP_ENDPOINT": got.endpoint}
        server.env |= {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
        try:
            server.up()
            wait_for(lambda: names.CERTIFICATE_EXPIRES in got.metrics(), "the metric to be pushed")
        finally:
            server.kill()
        metric = got.metrics()[names.CERTIFICATE_EXPIRES]
        assert [point.as_double for point in metric.gauge.data_points] == [END.timestamp()]

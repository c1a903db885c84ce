"""OTLP: metrics, logs and spans, pushed to a collector by the standard variables (OTEL_...), or nothing at all.

No upload waits for it: spans and log records go into bounded queues (2,048 of each), three daemon threads send them,
and while the collector is away spans and ordinary log records are not created. Nothing is flushed at the end of the
process, because the process may be killed at any time; so intervals are short.
"""

import logging
import os
import socket
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber

from uploader.telemetry import collector, names
from uploader.telemetry.json_log import fields, ours, said
from uploader.version import VERSION

log = logging.getLogger(__name__)
SIGNALS = ("metrics", "traces", "logs")
PROTOCOLS = {"grpc": "grpc", "http/protobuf": "http"}
EXPORTERS = {
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
DEFAULTS = {
    "OTEL_METRIC_EXPORT_INTERVAL": "5000",  # milliseconds, as the SDK pushes spans; logs go each second
    "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",  # exemplars cost more than the measurements
    "GRPC_VERBOSITY": "NONE",  # gRPC's core writes lines of its own to stderr, past all logging
}


def wanted(signal: str, env: Mapping[str, str]) -> bool:
    """Tell whether this signal is to be exported: an endpoint is named, and no variable says otherwise."""
    of_signal = env.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(of_signal) and not off and env.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp") == "otlp"


def protocol(signal: str, env: Mapping[str, str]) -> str:
    """Return grpc or http/protobuf, the specification's default. Raises ValueError, naming the variable."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := env.get(variable):
            if value not in PROTOCOLS:
                raise ValueError(f"{variable}={value}: it has to be one of {', '.join(PROTOCOLS)}")
            return value
    return "http/protobuf"


def begin(service: str) -> None:
    """Start the signals that the environment asks for. Never raises: uploads go on without telemetry."""
    signals = [signal for signal in SIGNALS if wanted(signal, os.environ)]
    if not signals:
        return
    os.environ.update({name: os.environ.get(name) or value for name, value in DEFAULTS.items()})
    try:
        resource = _resource(service)
        for signal in signals:
            _STARTS[signal](_exporter(signal), resource)
    except Exception as error:  # noqa: BLE001 whatever the libraries make of a wrong variable
        log.error(names.TELEMETRY_OFF, extra={"error": f"{type(error).__name__}: {error}"})  # noqa: TRY400 one line


def _exporter(signal: str) -> Any:  # noqa: ANN401 one of six classes
    module, name = EXPORTERS[signal]
    package = PROTOCOLS[protocol(signal, os.environ)]
    exporter = getattr(import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}"), name)
    return collector.watched(signal, exporter)()


def _resource(service: str) -> Any:  # noqa: ANN401 the SDK is imported only where it is used
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    found = {
        "service.name": service,
        "service.namespace": "nfs-watch",
        "service.instance.id": os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        "service.version": VERSION,
        "k8s.pod.name": os.environ.get("POD_NAME"),
        "k8s.namespace.name": os.environ.get("POD_NAMESPACE"),
        "k8s.pod.uid": os.environ.get("POD_UID"),
        "k8s.node.name": os.environ.get("NODE_NAME"),
    }
    given = OTELResourceDetector().detect().attributes  # OTEL_RESOURCE_ATTRIBUTES outranks what is found here
    return Resource.create({key: value for key, value in found.items() if value and key not in given})


def _start_metrics(exporter: Any, resource: Any) -> None:  # noqa: ANN401 as above
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    reader = PeriodicExportingMetricReader(exporter)
    metrics.set_meter_provider(MeterProvider([reader], resource, shutdown_on_exit=False))


def _start_traces(exporter: Any, resource: Any) -> None:  # noqa: ANN401 as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def _start_logs(exporter: Any, resource: Any) -> None:  # noqa: ANN401 as above
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415

    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    _logs.set_logger_provider(provider)
    logging.getLogger().addHandler(Forward())


class Forward(logging.Handler):
    """Passes records on to OTLP: the event as name and body, `extra` as attributes.

    The SDK's own handler is deprecated, and its successor takes three times as long (50 us a record).
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, unless it is about the telemetry itself: its push could log the next such record."""
        if record.name.startswith(("opentelemetry", "grpc")):
            return
        if record.levelno < logging.WARNING and not collector.takes("logs"):
            return
        text = said(record)
        _logs.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                severity_text=record.levelname,
                severity_number=SeverityNumber(min(record.levelno, 50) // 10 * 4 + 1),  # 10 to 50 are 5 to 21
                body=_valid(text),
                attributes={key: _attribute(value) for key, value in fields(record).items()},
                event_name=text if ours(record) else record.name,
                exception=record.exc_info[1] if record.exc_info else None,
            )
        )


def _attribute(value: Any) -> Any:  # noqa: ANN401 any JSON
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_attribute(one) for one in value]
    return _valid(str(value))


def _valid(text: str) -> str:
    """Return valid Unicode: a lone surrogate would make a receiver refuse the whole batch."""
    return text if text.isascii() else text.encode(errors="replace").decode()


_STARTS = {"metrics": _start_metrics, "traces": _start_traces, "logs": _start_logs}

"""A real OTLP receiver, over HTTP and gRPC, that keeps what it receives."""

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Attributes = dict[str, Any]
SERVICES: dict[str, tuple[Any, Any, str]] = {
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse, "metrics.v1.MetricsService"),
    "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse, "trace.v1.TraceService"),
    "/v1/logs": (ExportLogsServiceRequest, ExportLogsServiceResponse, "logs.v1.LogsService"),
}


def plain(value: AnyValue) -> Any:
    """Return the Python value of an attribute."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(pairs: Any) -> Attributes:
    """Return attributes as a dictionary."""
    found: dict[str, KeyValue] = {pair.key: pair for pair in pairs}
    return {key: plain(pair.value) for key, pair in found.items()}


@dataclass
class Receiver:
    """The received requests, in their order, and the endpoint to send to."""

    endpoint: str
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def of(self, kind: type) -> list[Any]:
        return [request for request in list(self.requests) if isinstance(request, kind)]

    def resources(self) -> list[Attributes]:
        found = []
        for request in list(self.requests):
            for name in ("resource_metrics", "resource_spans", "resource_logs"):
                found += [attributes(one.resource.attributes) for one in getattr(request, name, [])]
        return found

    def metrics(self) -> dict[str, Any]:
        """Return each metric as it was last received; values are cumulative."""
        return {
            metric.name: metric
            for request in self.of(ExportMetricsServiceRequest)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[tuple[Attributes, Any]]:
        """Return a metric's last points with their attributes."""
        metric = self.metrics().get(name)
        if metric is None:
            return []
        data = getattr(metric, metric.WhichOneof("data"))
        return [(attributes(point.attributes), point) for point in data.data_points]

    def value(self, name: str) -> float:
        """Return a counter's or gauge's value over all attributes."""
        return sum(float(getattr(point, point.WhichOneof("value"))) for _, point in self.points(name))

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.of(ExportTraceServiceRequest)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def logs(self) -> list[Any]:
        return [
            record
            for request in self.of(ExportLogsServiceRequest)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


@contextlib.contextmanager
def over_http(port: int = 0, *, refused: str = "", slow: float = 0) -> Iterator[Receiver]:
    """Receive OTLP as http/protobuf; 404 for the path `refused`, as a collector without that pipeline.

    Each answer takes `slow` seconds.
    """
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            time.sleep(slow)
            if self.path == refused:
                self.send_error(404)
                return
            request, response, _ = SERVICES[self.path]
            receiver.headers.append(dict(self.headers))
            receiver.requests.append(request.FromString(body))
            answer = response().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients are killed in the middle; that is what tests are about."""

    server = Server(("127.0.0.1", port), Handler)
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def over_grpc() -> Iterator[Receiver]:
    """Receive OTLP as grpc."""
    server = grpc.server(ThreadPoolExecutor(3))
    port = server.add_insecure_port("127.0.0.1:0")
    receiver = Receiver(f"http://127.0.0.1:{port}")

    def handler(answer: Any) -> Callable[[Any, Any], Any]:
        def export(request: Any, _: Any) -> Any:
            receiver.requests.append(request)
            return answer()

        return export

    for request, response, service in SERVICES.values():
        method = grpc.unary_unary_rpc_method_handler(
            handler(response), request.FromString, lambda answer: answer.SerializeToString()
        )
        service_name = f"opentelemetry.proto.collector.{service}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, {"Export": method}),))
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()

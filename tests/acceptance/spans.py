"""A receiver of OpenTelemetry's spans: OTLP over HTTP, as a collector is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """A span as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    seconds: float


class Receiver:
    """The spans that were received. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._spans: list[ReceivedSpan] = []
        self.address = ""

    def add(self, body: bytes) -> None:
        """Add the spans of a request."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                about = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._spans.extend(
                        ReceivedSpan(
                            service=about["service.name"],
                            name=span.name,
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            attributes={entry.key: entry.value.string_value for entry in span.attributes},
                            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        )
                        for span in scope.spans
                    )

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All of them."""
        with self._lock:
            return list(self._spans)

    def of_trace(self, trace_id: str) -> set[tuple[str, str]]:
        """Service and name of the spans of a trace."""
        return {(span.service, span.name) for span in self.spans if span.trace_id == trace_id}

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process exports to it, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.address, "OTEL_BSP_SCHEDULE_DELAY": "100"}


@contextmanager
def receiving_spans() -> Iterator[Receiver]:
    """A receiver during the block."""
    receiver = Receiver()

    class Request(BaseHTTPRequestHandler):
        """A request of an exporter."""

        def do_POST(self) -> None:
            """Take the spans."""
            receiver.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Write nothing to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        receiver.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()

"""The export of spans, apart from `tracing.py`: a till's command that exports none imports nothing of this."""

from collections.abc import Mapping
from os import environ
from typing import Final

from structlog import get_logger

from tenten.runtime.release import release

log = get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def export_spans(service: str) -> None:
    """Export the spans of this process, if the environment asks for it; `service` is its name unless that has one.

    The receiver may be away: spans are then lost, and nothing waits for it. Logs a warning if the extra is missing.
    """
    if not _is_wanted(environ):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        log.warning("tracing_not_installed", module=missing.name)
        return
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    named = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create({**named, "service.version": release()}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (not exporter and any(map(environment.get, _ENDPOINTS)))

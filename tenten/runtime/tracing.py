"""Traces (W3C Trace Context): one trace leads from the till that writes something to the store that applies it last.

A trace begins with the caller: the `traceparent` of an HTTP request, the environment variable `TRACEPARENT` of a
command, or the caller's current span of OpenTelemetry. Without one nothing is traced. The outbox remembers it, and
every record carries it on in its header `traceparent`, whether spans are exported or not.

Spans are exported where the extra `otel` is installed and a variable of OpenTelemetry names a receiver, such as
`OTEL_EXPORTER_OTLP_ENDPOINT`. Without that nothing of OpenTelemetry is imported.
"""

import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from tenten.runtime.release import release

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

HEADER: Final = "traceparent"
"""The header of records and of HTTP requests."""

_PATTERN: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_API: Final = "opentelemetry.trace"
_SEND_MS_MAX: Final = 2_000

_current: ContextVar[str | None] = ContextVar("tenten_traceparent", default=None)


def valid_traceparent(text: str | bytes | None) -> str | None:
    """The text if it is a `traceparent`; None for anything else, whoever has written it.

    >>> valid_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", errors="replace")
    return text if text is not None and _PATTERN.fullmatch(text) else None


def current_traceparent() -> str | None:
    """The trace of the caller; None if there is none."""
    return _current.get() or _of_opentelemetry()


def _of_opentelemetry() -> str | None:
    """The caller's current span, if the program uses OpenTelemetry."""
    api: Any = sys.modules.get(_API)
    return None if api is None else _traceparent_of(api.get_current_span())


def _traceparent_of(span: "Span") -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@contextmanager
def traced_by(traceparent: str | bytes | None) -> Generator[None]:
    """What the block writes belongs to this trace; anything that is no `traceparent` changes nothing."""
    valid = valid_traceparent(traceparent)
    if valid is None:
        yield
        return
    token = _current.set(valid)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def span(name: str, **attributes: str) -> Generator[None]:
    """The block as a span of the caller's trace. Costs nothing without a trace."""
    parent = current_traceparent()
    if parent is None:
        yield
        return
    begun = begin_span(name, parent, attributes)
    with traced_by(begun.traceparent):
        try:
            yield
        finally:
            begun.end()


class BegunSpan:
    """A span that has begun, or only the trace where none is exported. One that is not ended is not exported."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, traceparent: str, span: "Span | None") -> None:
        self.traceparent = traceparent
        """For what follows from the work of this span."""
        self._span = span

    def end(self) -> None:
        """The work is done."""
        if self._span is not None:
            self._span.end()


def begin_span(name: str, parent: str, attributes: Mapping[str, str]) -> BegunSpan:
    """Begin a span of this trace. No attribute may have personal data."""
    tracer = _tracer()
    if tracer is None:
        return BegunSpan(parent, None)
    begun = tracer.start_span(
        name, context=_context(parent), attributes={f"tenten.{key}": text for key, text in attributes.items()}
    )
    return BegunSpan(_traceparent_of(begun) or parent, begun)


def _tracer() -> "Tracer | None":
    api: Any = sys.modules.get(_API)
    if api is None:
        return None
    tracer: Tracer = api.get_tracer("tenten", release())
    return tracer


def _context(traceparent: str) -> "Context":
    from opentelemetry import trace

    _, trace_id, span_id, flags = traceparent.split("-")
    parent = trace.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(int(flags, 16))
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def is_exporting() -> bool:
    """Whether spans may be exported, for readers whose records lead nowhere else."""
    return _API in sys.modules


def send_spans() -> None:
    """Send the spans that have ended, before a short process ends. Waits a little for the receiver."""
    api: Any = sys.modules.get(_API)
    flush = None if api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(_SEND_MS_MAX)

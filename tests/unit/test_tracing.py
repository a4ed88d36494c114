"""The trace of a caller: what is accepted, and where it comes from."""

import pytest
from opentelemetry import trace

from tenten.runtime.tracing import current_traceparent, span, traced_by, valid_traceparent

VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        b"\xff\xfe",
        VALID.upper(),
        f"{VALID}-more",
        f"ff{VALID[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        f"{VALID}\n",
        "x" * 1_000_000,
    ],
    ids=["none", "empty", "bytes", "capitals", "longer", "version", "trace", "span", "line", "large"],
)
def test_what_is_no_traceparent_is_ignored(text: str | bytes | None) -> None:
    """Whoever writes such a header, in HTTP or in Kafka, has no trace."""
    assert valid_traceparent(text) is None
    with traced_by(text):
        assert current_traceparent() is None


def test_trace_is_that_of_the_innermost_block_and_ends_with_it() -> None:
    """Without an exporter a span leaves the trace as it is."""
    other = VALID.replace("b7ad", "c8be")
    with traced_by(VALID):
        with traced_by(other), span("create", channel="houston"):
            assert current_traceparent() == other
        with traced_by("rubbish"):
            assert current_traceparent() == VALID
    assert current_traceparent() is None


def test_current_span_of_a_program_is_the_trace_of_what_it_writes() -> None:
    """A program that uses OpenTelemetry names nothing by hand."""
    # given
    context = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, trace.TraceFlags(1))

    # when
    with trace.use_span(trace.NonRecordingSpan(context)):
        found = current_traceparent()

    # then
    assert found == VALID

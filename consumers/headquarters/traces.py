"""The traces of a batch: each traced record is a span, and its trace goes on with every record that it causes.

Outputs name the event that caused them in their header `id`, as their input does, so nothing has to be stored for this.
The header is not signed, and of no consequence: whoever forges it only confuses a trace.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from confluent_kafka import Message
from sqlalchemy import Engine, select

from tenten.kafka.records import Headers
from tenten.runtime.tracing import HEADER, BegunSpan, begin_span, valid_traceparent
from tenten.schemas.tables.headquarters import held_events
from tenten.sql.arrays import is_one_of


class BatchTraces:
    """The spans of the traced records of a batch, by event id."""

    def __init__(self, name: str, topic: str, messages: Iterable[Message]) -> None:
        """Begin a span of this name for each traced record of the topic."""
        self._begun: list[BegunSpan] = []
        self._spans: dict[bytes, BegunSpan] = {}
        for message in messages:
            headers: Any = message.headers()
            for header in headers or ():
                if header[0] == HEADER:
                    self._begin(name, topic, dict(headers))
                    break

    def _begin(self, name: str, topic: str, headers: Mapping[str, bytes | None]) -> None:
        event_id, traceparent = headers.get("id"), valid_traceparent(headers[HEADER])
        if event_id is not None and traceparent is not None:
            attributes = {"topic": topic, "event_id": event_id.decode(errors="replace")}
            span = begin_span(name, traceparent, attributes)
            self._begun.append(span)
            # The event itself, and a forwarded copy of it, may be in one batch: the first one counts.
            self._spans.setdefault(event_id, span)

    def add_held(self, engine: Engine, held_ids: Collection[int]) -> None:
        """Begin the spans of held events that were judged with this batch: their records have kept their headers."""
        if not held_ids:
            return
        query = select(held_events.c.headers, held_events.c.topic)
        with engine.begin() as headquarters:
            rows = headquarters.execute(query.where(is_one_of(headquarters, held_events.c.held_id, held_ids))).all()
        for headers, topic in rows:
            found = {name: None if value is None else bytes.fromhex(value) for name, value in headers}
            if HEADER in found:
                self._begin("judge", topic, found)

    def carried(self, headers: Headers) -> Headers:
        """The headers of an output, with the trace of the record that caused it."""
        if self:
            traceparent = self.traceparent(dict(headers)["id"])
            if traceparent is not None:
                return [*headers, (HEADER, traceparent)]
        return headers

    def __bool__(self) -> bool:
        """Whether a record of the batch is traced."""
        return bool(self._spans)

    def traceparent(self, event_id: str | bytes | None) -> str | None:
        """The trace of the record with this id; None if it is not traced."""
        key = event_id.encode() if isinstance(event_id, str) else event_id
        span = None if key is None else self._spans.get(key)
        return None if span is None else span.traceparent

    def by_id(self) -> dict[str, str]:
        """The traces by event id."""
        return {event_id.decode(errors="replace"): span.traceparent for event_id, span in self._spans.items()}

    def end(self) -> None:
        """The batch is committed."""
        for span in self._begun:
            span.end()

"""The spans of traced records between reading and the commit of what they cause, where spans are exported."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Message

from tenten.kafka.records import record_position
from tenten.runtime.tracing import HEADER, BegunSpan, begin_span, is_exporting, valid_traceparent


class RecordSpans:
    """Begun by the thread that reads, ended by the one that commits. Does nothing where no span is exported."""

    def __init__(self, name: str, attributes: Mapping[str, str], key: str | None = None) -> None:
        """`key`: only records with it belong to the reader; None: all do."""
        self._name = name
        self._attributes = attributes
        self._key = None if key is None else key.encode()
        self._begun: deque[tuple[int, int, BegunSpan]] = deque()
        """Partition, offset, and span, in the order of reading."""

    def begin(self, messages: Sequence[Message]) -> None:
        """Begin the spans of delivered records."""
        if not is_exporting():
            return
        for message in messages:
            headers: Any = message.headers()
            if not headers or (self._key is not None and message.key() != self._key):
                continue
            found = dict(headers)
            traceparent = valid_traceparent(found.get(HEADER))
            if traceparent is not None:
                event_id = (found.get("id") or b"").decode(errors="replace")
                span = begin_span(self._name, traceparent, {**self._attributes, "event_id": event_id})
                self._begun.append((*record_position(message), span))

    def end(self, next_offsets: Mapping[int, int]) -> None:
        """End the spans of the records before these offsets, by partition."""
        for _ in range(len(self._begun)):
            partition, offset, span = self._begun.popleft()
            if offset < next_offsets.get(partition, 0):
                span.end()
            else:
                self._begun.append((partition, offset, span))

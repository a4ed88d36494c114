"""Whatever a record contains, headquarters' outputs fit their topics: otherwise its database would commit, and Kafka
never.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from tenten.avro.batches import UnreadableRow
from tenten.avro.primitives import leading_texts
from tenten.avro.wire import SINGLE_OBJECT_HEADER_BYTES, WriterSchemas, contracts
from tenten.consumers.headquarters.customers import classify
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, Original
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import created_outputs, erasures, replies, snapshots
from tenten.consumers.headquarters.customers.synchronize import Headquarters, synchronize
from tenten.consumers.headquarters.customers.unreadable_replies import unreadable_replies
from tenten.consumers.headquarters.dead_letters import kept_record
from tenten.consumers.headquarters.known_channels import ChannelRegistry
from tenten.consumers.headquarters.output import Output
from tenten.consumers.headquarters.positions import Stream, StreamPositions
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.transactions.classify import decode_and_classify
from tenten.consumers.headquarters.transactions.ingest import ingest
from tenten.consumers.headquarters.transactions.reply_outbox import reply_headers
from tenten.consumers.headquarters.transactions.unreadable_replies import (
    unreadable_replies as unreadable_transaction_replies,
)
from tenten.kafka.partitioner import partition_of
from tenten.kafka.records import Headers
from tenten.runtime.tracing import HEADER
from tenten.schemas.topics import (
    ASYNC_CUSTOMERS,
    ASYNC_CUSTOMERS_DLQ,
    CHANNEL_REPLIES,
    CUSTOMERS,
    ERASURES,
    RETAIL_TRANSACTIONS_DLQ,
    TRANSACTION_REPLIES,
    Topic,
)
from tenten.sql.engine import open_database
from tests.databases import create_from_template, drop_database
from tests.examples import examples
from tests.hostile.sizes import Framed, events, fits, transactions

NOW: Final = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS: Final = {schema.name: schema.header for schema in contracts()}
SETTINGS: Final = """
    TRUNCATE customers, customer_addresses, customer_contacts, customer_audit, number_sequences, synchronization_log,
        positions, release_due, held_events, legal_entities, channels, retail_transactions, replies_due, statements,
        statement_listed;
    INSERT INTO legal_entities VALUES ('usrt', 'US', 'USD', 'en-US', now(), '[]', '{}');
    INSERT INTO channels SELECT name, 'usrt', '[]', 'async', 2, 'UTC', '{}', now(), true
        FROM unnest(ARRAY['houston', 'dallas']) AS name;
    INSERT INTO number_sequences VALUES ('usrt', 'C-######', 1, true);
    INSERT INTO positions VALUES ('headquarters', 'topic', 0, 0), ('transactions', 'topic', 0, 0);
"""


class Workers:
    """Both workers of headquarters without Kafka: records go in, outputs come out."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_database(url)
        self._connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.empty()

    def empty(self) -> None:
        """Start again, with two channels."""
        self._connection.execute(SETTINGS.encode())
        registry = ChannelRegistry(self.engine)
        registry.refresh()
        self.channels = registry.known
        held = HeldCustomers(WriterSchemas())
        self._at = Headquarters(engine=self.engine, blocks=Blocks(self.engine), channels=self.channels, held=held)
        self._offset = 0

    def customer_outputs(self, values: Sequence[bytes], own_headers: Sequence[Any]) -> Iterator[tuple[Topic, Output]]:
        """Everything that the customers worker writes after a batch of these events."""
        messages, positions, reached = self._batch("headquarters", values, own_headers)
        keys = [message.key() for message in messages]
        writers = WriterSchemas()
        decoded = classify.decode_small(keys, values, writers)
        batch = (
            classify.decode_and_classify(keys, values, writers, self.channels, positions, partitions=1)
            if decoded is None
            else classify.individually(decoded, values, positions)
        )
        done = synchronize(
            self._at,
            batch,
            reached,
            now=NOW,
            encode=partial(created_outputs, values=values, headers=HEADERS),
            originals=lambda row: Original(values[row], own_headers[row]),
        )
        for topic, outputs in (
            (CUSTOMERS, snapshots(done, HEADERS)),
            (CHANNEL_REPLIES, replies(done, HEADERS)),
            (ERASURES, erasures(done, HEADERS)),
        ):
            yield from ((topic, output) for output in outputs)
        answers = unreadable_replies(
            messages, batch.unreadable, writers=writers, channels=self.channels, header=HEADERS["Reply"], now=NOW
        )
        yield from ((CHANNEL_REPLIES, reply) for reply in answers)
        yield from _dead_letters(ASYNC_CUSTOMERS_DLQ, messages, batch.unreadable)

    def transaction_outputs(
        self, values: Sequence[bytes], own_headers: Sequence[Any]
    ) -> Iterator[tuple[Topic, Output]]:
        """Everything that the transactions worker writes after a batch of these transactions."""
        messages, positions, reached = self._batch("transactions", values, own_headers)
        keys = [message.key() for message in messages]
        writers = WriterSchemas()
        batch = decode_and_classify(keys, values, writers, self.channels, positions, partitions=1)
        unreadable = (*batch.unreadable, *ingest(self.engine, batch, reached))
        for event in batch.forwarded_events:
            headers: list[tuple[str, str | bytes | None]] = [("id", event.event_id), ("type", "CustomerForwarded")]
            yield ASYNC_CUSTOMERS, Output(event.customer_id.encode(), event.value, headers)
        queued = self._connection.execute("SELECT channel_ids, transaction_ids::text[], payloads FROM replies_due")
        for row in queued.fetchall():
            for channel_id, transaction_id, payload in zip(*row, strict=True):
                yield TRANSACTION_REPLIES, Output(channel_id.encode(), payload, reply_headers(transaction_id))
        channels = self.channels.legal_entity_by_channel
        answers = unreadable_transaction_replies(messages, unreadable, writers=writers, channels=channels, now=NOW)
        yield from ((TRANSACTION_REPLIES, reply) for reply in answers)
        yield from _dead_letters(RETAIL_TRANSACTIONS_DLQ, messages, unreadable)

    def _batch(
        self, group: str, values: Sequence[bytes], own_headers: Sequence[Any]
    ) -> tuple[list[Message], RecordPositions, StreamPositions]:
        start, self._offset = self._offset, self._offset + len(values)
        offsets = list(range(start, self._offset))
        messages = [
            Message(topic="t", partition=0, offset=offset, key=_key(value), value=value, headers=list(headers))
            for offset, value, headers in zip(offsets, values, own_headers, strict=True)
        ]
        positions = RecordPositions(topic="t", partitions=[0] * len(values), offsets=offsets)
        stream = Stream(consumer_group=group, topic_id="topic")
        return messages, positions, StreamPositions(stream=stream, starts={0: start}, next_offsets={0: self._offset})

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()
        self.engine.dispose()


def _key(value: bytes) -> bytes:
    """The record key: the first field."""
    texts = leading_texts(value[SINGLE_OBJECT_HEADER_BYTES:], 1)
    assert texts is not None
    assert partition_of(texts[0], 1) == 0
    return texts[0].encode()


def _dead_letters(
    topic: Topic, messages: Sequence[Message], unreadable: Iterable[UnreadableRow]
) -> Iterator[tuple[Topic, Output]]:
    for bad in unreadable:
        kept = kept_record(messages[bad.row], bad, NOW)
        yield topic, Output(kept.key or b"", kept.value, kept.headers)


@pytest.fixture(scope="module")
def workers(postgresql: str) -> Iterator[Workers]:
    """One for all tests of the module."""
    name = f"fit_{uuid4().hex}"
    made = Workers(create_from_template(postgresql, name, "headquarters"))
    yield made
    made.close()
    drop_database(postgresql, name)


OWN_HEADERS: Final[Sequence[Headers]] = (
    [],
    [("id", b"x" * 400_000), ("type", b"CustomerCreated")],
    [("x" * 30_000, None)] * 10,
    [("id", b"0197a3f2-8a41-7c3e-9d55-000000000000")],
)
"""What a record may have as headers."""

RECORDS_MAX: Final = 3


@examples(15)
@given(st.lists(events(), min_size=1, max_size=RECORDS_MAX), st.sampled_from(range(len(OWN_HEADERS))))
def test_outputs_of_customer_events_fit_their_topics(workers: Workers, batch: list[Framed], headers: int) -> None:
    """Snapshots, replies, erasures and dead letters; and the database accepts the rows."""
    workers.empty()
    assert_fit(workers.customer_outputs(batch, [OWN_HEADERS[headers]] * len(batch)))


@examples(15)
@given(st.lists(transactions(), min_size=1, max_size=RECORDS_MAX), st.sampled_from(range(len(OWN_HEADERS))))
def test_outputs_of_transactions_fit_their_topics(workers: Workers, batch: list[Framed], headers: int) -> None:
    """Forwarded events, replies and dead letters; and the database accepts the rows."""
    workers.empty()
    assert_fit(workers.transaction_outputs(batch, [OWN_HEADERS[headers]] * len(batch)))


def assert_fit(outputs: Iterable[tuple[Topic, Output]]) -> None:
    """Each topic accepts its records, also with the header of a trace, which any of them may get."""
    too_large = [
        (topic.name, len(output.key), len(output.value or b""))
        for topic, output in outputs
        if not fits(topic, output.key, output.value, [*output.headers, (HEADER, TRACEPARENT)])
    ]
    assert too_large == []

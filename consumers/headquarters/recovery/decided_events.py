"""The events that the group had processed: they were decided, whatever else is known of them.

The log entries that come from replies get kind, time, operator and content hash from the events. An event without a
reply, because `channel-replies` has lost it, is logged without being applied again if its customer exists: the
customer's snapshot contains what became of it. Otherwise an edit of then would be applied over later ones.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Message
from sqlalchemy import Connection, Engine, insert, select, text

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.content_hash import content_hash, content_hash_of
from tenten.consumers.headquarters.input_positions import Input
from tenten.consumers.headquarters.recovery.refused_records import refused_records
from tenten.consumers.headquarters.recovery.topic_batches import Progress, records_between
from tenten.kafka.partitioner import partition_of
from tenten.kafka.records import record_position
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.limits import is_guid
from tenten.rules.operator_rule import storable_operator
from tenten.runtime.settings import Settings
from tenten.schemas.messages import CustomerEvent, EventKind, Outcome, event_from_avro
from tenten.schemas.tables.headquarters import customers, synchronization_log
from tenten.schemas.topics import ASYNC_CUSTOMERS_DLQ, EVENT_BYTES_MAX
from tenten.sql.arrays import is_one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """An event with its content hash and the position of its record."""

    event: CustomerEvent
    content_hash: int | None
    partition: int
    offset: int


@dataclass(slots=True)
class _Batch:
    """The events of some records."""

    first: dict[str, _Read] = field(default_factory=dict)
    """By event id: the first one with this id."""
    others: list[_Read] = field(default_factory=list)
    """Repeats, and events with the id of another event."""


def log_decided_events(
    settings: Settings, engine: Engine, read: Input, unreadable: Container[str], progress: Progress
) -> int:
    """Complete the log for the events between the database's positions and the group's offsets; the number of events
    that no reply proves. `unreadable` are events that became dead letters. Idempotent.

    Raises: `KafkaRefused`, `KafkaException`; errors of the database.
    """
    writers, without_reply = writer_schemas(settings), 0
    refused = refused_records(settings, ASYNC_CUSTOMERS_DLQ, progress)
    starts, targets = read.starts(), read.processed()
    for messages in records_between(settings, read.name, starts, targets, progress):
        accepted = (message for message in messages if record_position(message) not in refused)
        batch = _decoded(accepted, writers, len(starts))
        events = {key: event for key, event in batch.first.items() if key not in unreadable}
        if events:
            with engine.begin() as headquarters:
                logged = set(headquarters.scalars(_logged(headquarters, events)))
                known = [event for key, event in events.items() if key in logged] + batch.others
                _complete(headquarters, known)
                missing = [event for key, event in events.items() if key not in logged]
                without_reply += _log_unproved(headquarters, read.name, missing)
                _note_conflicts(headquarters, known)
    return without_reply


def forget_decided_held_events(engine: Engine) -> None:
    """Delete the held events that have been judged since the backup, and those of erased customers. Idempotent."""
    with engine.begin() as headquarters:
        headquarters.execute(_FORGET_HELD)


_FORGET_HELD: Final = text(
    f"""
    DELETE FROM held_events AS held
    WHERE EXISTS (
        SELECT FROM synchronization_log AS logged
        WHERE logged.event_id = held.event_id AND logged.outcome <> '{Outcome.HELD.lower()}'
    ) OR EXISTS (
        SELECT FROM customers WHERE customers.customer_id = held.customer_id AND customers.erased_at IS NOT NULL
    )
    """  # noqa: S608 - a constant
)


def _decoded(messages: Iterable[Message], writers: WriterSchemas, partitions: int) -> _Batch:
    """The events that the worker accepts; all other records are dead letters."""
    batch = _Batch()
    for message in messages:
        value, (partition, offset) = bytes(message.value() or b""), record_position(message)
        try:
            event = event_from_avro(writers.decode(value, contract("CustomerEvent")))
        except (Unreadable, ValueError):
            continue
        if not (is_guid(event.event_id) and is_guid(event.customer_id)) or len(value) > EVENT_BYTES_MAX:
            continue
        if message.key() == event.customer_id.encode() and partition_of(event.customer_id, partitions) == partition:
            given = content_hash_of(event, content_hash(value))
            read = _Read(event=event, content_hash=given, partition=partition, offset=offset)
            if batch.first.setdefault(event.event_id, read) is not read:
                batch.others.append(read)
    return batch


def _logged(headquarters: Connection, events: Iterable[str]) -> Any:
    return select(synchronization_log.c.event_id).where(is_one_of(headquarters, synchronization_log.c.event_id, events))


def _complete(headquarters: Connection, events: Iterable[_Read]) -> None:
    """Give log entries that come from a reply what the event itself says."""
    rows = [
        {
            "event_id": read.event.event_id,
            "customer_id": read.event.customer_id,
            "kind": read.event.kind.lower(),
            "operator": storable_operator(read.event.operator),
            "occurred_at": read.event.occurred_at,
            "content_hash": read.content_hash,
        }
        for read in events
    ]
    if rows:
        headquarters.execute(_COMPLETE, rows)


_COMPLETE: Final = text(
    f"""
    UPDATE synchronization_log
    SET kind = :kind, operator = :operator, occurred_at = :occurred_at, content_hash = :content_hash
    WHERE event_id = :event_id AND customer_id = :customer_id AND kind = '{EventKind.UNKNOWN.lower()}'
    """  # noqa: S608 - a constant
)


def _note_conflicts(headquarters: Connection, events: Iterable[_Read]) -> None:
    """Note in the log that there are other events with the id of a logged one. Idempotent."""
    rows = [(read.event.event_id, read.event.customer_id, read.content_hash) for read in events]
    if rows:
        ids, customer_ids, hashes = (list(column) for column in zip(*rows, strict=True))
        headquarters.execute(_NOTE_CONFLICTS, {"ids": ids, "customer_ids": customer_ids, "hashes": hashes})


_NOTE_CONFLICTS: Final = text(
    """
    UPDATE synchronization_log AS logged SET conflicts = 1
    FROM unnest(CAST(:ids AS uuid[]), CAST(:customer_ids AS uuid[]), CAST(:hashes AS bigint[]))
        AS read (event_id, customer_id, content_hash)
    WHERE logged.event_id = read.event_id AND logged.conflicts = 0
      AND (logged.customer_id <> read.customer_id OR logged.content_hash <> read.content_hash)
    """
)


def _log_unproved(headquarters: Connection, topic: str, events: Collection[_Read]) -> int:
    """Log these events of existing customers as part of their current version; their number."""
    table = customers.c
    ids = {read.event.customer_id for read in events}
    query = select(table.customer_id, table.account_number, table.version, table.erased_at, table.updated_at)
    existing = {
        row.customer_id: row
        for row in headquarters.execute(query.where(is_one_of(headquarters, table.customer_id, ids)))
    }
    rows: list[Mapping[str, Any]] = [
        {
            "event_id": read.event.event_id,
            "customer_id": read.event.customer_id,
            "channel_id": read.event.channel_id,
            "kind": read.event.kind.lower(),
            "outcome": (Outcome.ERASED if customer.erased_at is not None else Outcome.SYNCHRONIZED).lower(),
            "reasons": [],
            "account_number": customer.account_number,
            "version": customer.version,
            "operator": storable_operator(read.event.operator),
            "repeats": 0,
            "judgement": 1,
            "content_hash": read.content_hash,
            "topic": topic,
            "partition": read.partition,
            "offset": read.offset,
            "occurred_at": read.event.occurred_at,
            "received_at": customer.updated_at,
        }
        for read in events
        if (customer := existing.get(read.event.customer_id)) is not None
    ]
    if rows:
        headquarters.execute(insert(synchronization_log), rows)
    return len(rows)

"""The log of events, from `channel-replies`: what a store was told stands, and an event that arrives again is a repeat.

A reply does not name the kind of its event, nor when it occurred: the recovered entries have `unknown` and the time of
the reply, until `decided_events.py` finds the event.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Message
from sqlalchemy import Connection, Engine, case
from sqlalchemy.dialects.postgresql import insert

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.recovery.topic_batches import Progress, topic_batches
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.limits import is_guid
from tenten.runtime.settings import Settings
from tenten.schemas.messages import EventKind, Outcome, Reply, reasons_as_json, reply_from_avro
from tenten.schemas.tables.headquarters import synchronization_log
from tenten.schemas.topics import ASYNC_CUSTOMERS, CHANNEL_REPLIES

_UNKNOWN_POSITION: Final = -1
"""Replies of release 0.1.0 do not name the record that they answer."""


def recover_events(settings: Settings, engine: Engine, progress: Progress) -> tuple[int, set[str]]:
    """Log what stores were told; the number of events that were not logged, or were judged again later, and the ids of
    events that headquarters could not read. Idempotent.

    Raises: `KafkaRefused`, `KafkaException`; errors of the database.
    """
    recovered, writers, unreadable = 0, writer_schemas(settings), set[str]()
    for messages in topic_batches(settings, CHANNEL_REPLIES, progress):
        replies = list(_replies(messages, writers))
        unreadable.update(reply.event_id for reply in replies if reply.outcome is Outcome.UNREADABLE)
        rows = _rows(replies, settings.topic(ASYNC_CUSTOMERS))
        if rows:
            with engine.begin() as headquarters:
                recovered += _log(headquarters, list(rows.values()))
    return recovered, unreadable


def _replies(messages: Iterable[Message], writers: WriterSchemas) -> Iterable[Reply]:
    """The replies to events. A reply that this release cannot read belongs to an event that it would judge itself."""
    for message in messages:
        try:
            decoded = writers.decode(message.value() or b"", contract("Reply"))
        except Unreadable:
            continue
        # Release 0.1.0 wrote replies to transactions here, too.
        if not decoded["transaction_status"]:
            yield reply_from_avro(decoded)


def _rows(replies: Iterable[Reply], topic: str) -> Mapping[str, Mapping[str, Any]]:
    """The entries by event id, each from the highest judgement."""
    rows: dict[str, Mapping[str, Any]] = {}
    for reply in replies:
        if not _is_logged(reply):
            continue
        row = _row(reply, topic)
        before = rows.get(reply.event_id)
        if before is None:
            rows[reply.event_id] = row
        elif before["judgement"] <= row["judgement"]:
            rows[reply.event_id] = _judged_again(before, row)
    return rows


def _is_logged(reply: Reply) -> bool:
    """Whether the event is in the log of the worker that replied; not one that has the id of another event there."""
    has_id_of_another = any(reason.field == "event_id" and reason.code == "duplicate" for reason in reply.reasons)
    is_decided = reply.outcome not in (Outcome.UNREADABLE, Outcome.UNKNOWN)
    return is_decided and not has_id_of_another and is_guid(reply.event_id)


def _row(reply: Reply, topic: str) -> Mapping[str, Any]:
    has_position = reply.input_partition is not None and reply.input_offset is not None
    return {
        "event_id": reply.event_id,
        "customer_id": reply.customer_id,
        "channel_id": reply.channel_id,
        "kind": EventKind.UNKNOWN.lower(),
        "outcome": reply.outcome.lower(),
        "reasons": reasons_as_json(reply.reasons),
        "account_number": reply.account_number,
        "version": reply.version,
        "operator": None,
        "repeats": 0,
        "judgement": max(reply.judgement, 1),
        "topic": topic,
        "partition": reply.input_partition if has_position else _UNKNOWN_POSITION,
        "offset": reply.input_offset if has_position else _UNKNOWN_POSITION,
        "occurred_at": reply.answered_at,
        "received_at": reply.answered_at,
    }


_SUPERSEDED: Final = Outcome.SUPERSEDED.lower()


def _judged_again(before: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry of an event that was judged again: of a superseded one the log keeps the reasons of its rejection."""
    return {**row, "reasons": before["reasons"]} if row["outcome"] == _SUPERSEDED else row


def _log(headquarters: Connection, rows: list[Mapping[str, Any]]) -> int:
    """Insert entries, and update those that were judged again, as above; their number."""
    entries, logged = insert(synchronization_log).values(rows), synchronization_log.c
    judged: dict[str, Any] = {
        name: entries.excluded[name] for name in ("outcome", "account_number", "version", "judgement")
    }
    judged["reasons"] = case((entries.excluded.outcome == _SUPERSEDED, logged.reasons), else_=entries.excluded.reasons)
    statement = entries.on_conflict_do_update(
        index_elements=["event_id"], set_=judged, where=entries.excluded.judgement > logged.judgement
    )
    return len(headquarters.execute(statement.returning(logged.event_id)).all())

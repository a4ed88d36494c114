"""The newest outputs of headquarters must be known to its database, which commits all of them before Kafka.

If one is not, the database is older than the stream: whatever was assigned in between would be assigned again. It does
not matter why, and it does not depend on the offsets of a consumer group, which may have expired or been moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Message
from sqlalchemy import Connection

from tenten.avro.wire import Json, Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.positions import Stream, create_positions, raise_positions
from tenten.kafka.newest_records import newest_records
from tenten.kafka.offsets import Partition, last_stable_offsets
from tenten.kafka.records import headers_of
from tenten.kafka.topics_admin import TopicInfo, topic_ids
from tenten.rules.limits import is_guid
from tenten.runtime.settings import Settings
from tenten.schemas.messages import UNREADABLE_SEQUENCE, Outcome, TransactionStatus
from tenten.schemas.topics import CHANNEL_REPLIES, CUSTOMERS, TRANSACTION_REPLIES

if TYPE_CHECKING:
    import psycopg

OUTPUTS: Final = (CUSTOMERS, CHANNEL_REPLIES, TRANSACTION_REPLIES)
"""The topics that prove what headquarters has told its channels."""

_UNLOGGED: Final = frozenset((Outcome.HELD, Outcome.UNREADABLE, Outcome.UNKNOWN))
"""Outcomes of replies that do not prove a log entry."""


@dataclass(slots=True, kw_only=True)
class NewestOutputs:
    """What the newest records of each partition say."""

    versions: dict[str, int] = field(default_factory=dict)
    """By customer id: the version of the snapshot."""
    erased_by: dict[str, str] = field(default_factory=dict)
    """By customer id: the event that caused the tombstone."""
    judgements: dict[str, int] = field(default_factory=dict)
    """By event id: the number of the judgement in the reply."""
    sequences: dict[str, int] = field(default_factory=dict)
    """By the id of a transaction or an end of day: the number of the reply."""
    sales_orders: dict[str, str] = field(default_factory=dict)
    """By transaction id: the sales order."""


def accept_outputs(settings: Settings, headquarters: Connection) -> None:
    """Accept that the database lacks some of the outputs that are on the topics now: a recovery has restored those that
    it could. Raises: `KafkaRefused`, `KafkaException`.
    """
    for name, info in topic_ids(settings, map(settings.topic, OUTPUTS)).items():
        stream = _accepted(settings, info)
        ends = last_stable_offsets(settings, name, info.partitions)
        create_positions(headquarters, stream, ends)
        raise_positions(headquarters, stream, ends)


def _accepted(settings: Settings, info: TopicInfo) -> Stream:
    """The owner of the positions up to which the outputs on this topic were accepted."""
    return Stream(consumer_group=settings.group("accepted-outputs"), topic_id=info.topic_id)


def outputs_lacking(
    settings: Settings, writers: WriterSchemas, driver: "psycopg.Connection[Any]", found: Mapping[str, TopicInfo]
) -> str:
    """The newest outputs that the database lacks, as a phrase; empty if it has all of them.

    `found` has the topics by name with prefix. Raises: `KafkaRefused`, `KafkaException`; errors of `writers` and of the
    database.
    """
    names = list(map(settings.topic, OUTPUTS))
    accepted = {
        (name, partition): offset
        for name in names
        for partition, offset in driver.execute(
            _ACCEPTED, (_accepted(settings, found[name]).consumer_group, found[name].topic_id)
        )
    }
    # Kafka is read outside of a transaction, and first: the database is ahead of it at any time.
    driver.commit()
    newest = _read_newest(settings, writers, {name: found[name].partitions for name in names}, accepted)
    return _unknown_outputs(driver, newest)


_ACCEPTED: Final = "SELECT partition, next_offset FROM positions WHERE consumer_group = %s AND topic_id = %s"


def _read_newest(
    settings: Settings, writers: WriterSchemas, partitions: Mapping[str, int], accepted: Mapping[Partition, int]
) -> NewestOutputs:
    """Read the newest records behind the accepted ones; `partitions` has the number of each topic's."""
    newest = NewestOutputs()
    readers = {
        settings.topic(CUSTOMERS): _add_snapshot,
        settings.topic(CHANNEL_REPLIES): _add_reply,
        settings.topic(TRANSACTION_REPLIES): _add_transaction_reply,
    }
    for message in newest_records(settings, partitions, accepted):
        readers[message.topic() or ""](newest, writers, message)
    return newest


def _add_snapshot(newest: NewestOutputs, writers: WriterSchemas, message: Message) -> None:
    customer_id = bytes(message.key() or b"").decode(errors="replace")
    if not is_guid(customer_id):
        return
    if message.value() is None:
        cause = (dict(headers_of(message)).get("id") or b"").decode(errors="replace")
        newest.versions.pop(customer_id, None)
        newest.erased_by[customer_id] = cause if is_guid(cause) else customer_id
        return
    snapshot = _decoded(message, "Customer", writers)
    if snapshot is not None:
        newest.erased_by.pop(customer_id, None)
        newest.versions[customer_id] = snapshot["version"]


def _add_reply(newest: NewestOutputs, writers: WriterSchemas, message: Message) -> None:
    reply = _decoded(message, "Reply", writers)
    if reply is None or not is_guid(reply["event_id"]):
        return
    # Release 0.1.0 has replied to transactions here.
    if reply["outcome"] not in _UNLOGGED and not reply["transaction_status"] and not _has_duplicate_id(reply):
        event_id = reply["event_id"]
        newest.judgements[event_id] = max(reply["judgement"], newest.judgements.get(event_id, 0))


def _add_transaction_reply(newest: NewestOutputs, writers: WriterSchemas, message: Message) -> None:
    reply = _decoded(message, "TransactionReply", writers)
    if reply is None or not is_guid(reply["transaction_id"]) or _is_id_conflict(reply):
        return
    if reply["sequence"] == UNREADABLE_SEQUENCE:
        return
    transaction_id = reply["transaction_id"]
    newest.sequences[transaction_id] = max(reply["sequence"], newest.sequences.get(transaction_id, 0))
    if reply["sales_order"] is not None:
        newest.sales_orders[transaction_id] = reply["sales_order"]


def _is_id_conflict(reply: Json) -> bool:
    """Whether the transaction has the id of another channel's: its number is not that of a stored reply."""
    return str(reply["status"]).lower() == TransactionStatus.REJECTED and _has_duplicate_id(reply)


def _has_duplicate_id(reply: Json) -> bool:
    """Whether the record has the id of another one, which is stored in its place."""
    return any(
        reason["code"] == "duplicate" and reason["field"] in ("event_id", "transaction_id")
        for reason in reply["reasons"]
    )


def _decoded(message: Message, name: str, writers: WriterSchemas) -> Json | None:
    """The record; None if it is unreadable."""
    try:
        return writers.decode(bytes(message.value() or b""), contract(name))
    except Unreadable:
        return None


def _unknown_outputs(driver: "psycopg.Connection[Any]", newest: NewestOutputs) -> str:
    parts = []
    for kind, statement, known in (
        ("customers", _UNKNOWN_SNAPSHOTS, newest.versions),
        ("erased customers", _UNKNOWN_TOMBSTONES, newest.erased_by),
        ("replies to events", _UNKNOWN_REPLIES, newest.judgements),
        ("replies to transactions", _UNKNOWN_TRANSACTION_REPLIES, newest.sequences),
        ("sales orders", _UNKNOWN_SALES_ORDERS, newest.sales_orders),
    ):
        count = _count(driver, statement, known)
        if count:
            parts.append(f"{count} of the newest {len(known)} {kind}")
    return ", ".join(parts)


def _count(driver: "psycopg.Connection[Any]", statement: str, sent: Mapping[str, object]) -> int:
    if not sent:
        return 0
    row = driver.execute(statement.encode(), (list(sent), list(sent.values()))).fetchone()
    assert row is not None  # count(*) returns one row
    return int(row[0])


# Customers that the database does not have, or has in an earlier version. An erased customer has no later one.
_UNKNOWN_SNAPSHOTS: Final = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::bigint[]) AS sent (customer_id, version)
    LEFT JOIN customers USING (customer_id)
    WHERE customers.customer_id IS NULL OR (customers.erased_at IS NULL AND customers.version < sent.version)
    """

# Tombstones of customers that are not erased, unless the event that caused it is logged: it may remove a customer from
# the topic that the database never had.
_UNKNOWN_TOMBSTONES: Final = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::uuid[]) AS sent (customer_id, event_id)
    WHERE NOT EXISTS (
        SELECT FROM customers WHERE customers.customer_id = sent.customer_id AND customers.erased_at IS NOT NULL
    ) AND NOT EXISTS (
        SELECT FROM synchronization_log AS logged WHERE logged.event_id = sent.event_id
    )
    """

# Replies to events that are not logged, or only with an earlier judgement.
_UNKNOWN_REPLIES: Final = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::bigint[]) AS sent (event_id, judgement)
    WHERE NOT EXISTS (
        SELECT FROM synchronization_log AS logged
        WHERE logged.event_id = sent.event_id AND logged.judgement >= sent.judgement
    )
    """

# Replies to orders, sales and ends of day that are not stored, or only with an earlier reply.
_UNKNOWN_TRANSACTION_REPLIES: Final = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::bigint[]) AS sent (id, sequence)
    WHERE NOT EXISTS (
        SELECT FROM retail_transactions AS sold WHERE sold.transaction_id = sent.id AND sold.answer >= sent.sequence
    ) AND NOT EXISTS (
        SELECT FROM statements AS closed WHERE closed.statement_id = sent.id AND closed.answer >= sent.sequence
    )
    """

_UNKNOWN_SALES_ORDERS: Final = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::text[]) AS sent (transaction_id, sales_order)
    WHERE NOT EXISTS (
        SELECT FROM sales_orders AS known
        WHERE known.transaction_id = sent.transaction_id AND known.sales_order = sent.sales_order
    )
    """

"""Orders, sales and ends of day: read again up to where they were processed, then brought to what stores were told.

Records are ingested as the transactions worker does. Their customer events are not forwarded again and their unreadable
records not written as dead letters again: both were committed together with the offsets that are read up to here. Then
`transaction-replies` gives each order its sales order number and each transaction the number of its last reply. What
has not been told is released by the worker, as always, and statements are posted by it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import Message
from sqlalchemy import Connection, Engine, select, text, update

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.input_positions import Input
from tenten.consumers.headquarters.known_channels import ChannelRegistry, KnownChannels
from tenten.consumers.headquarters.positions import StreamPositions, advance_positions
from tenten.consumers.headquarters.record_positions import record_positions
from tenten.consumers.headquarters.recovery.refused_records import refused_records
from tenten.consumers.headquarters.recovery.topic_batches import Progress, records_between, topic_batches
from tenten.consumers.headquarters.transactions.classify import decode_and_classify
from tenten.consumers.headquarters.transactions.ingest import ingest
from tenten.kafka.records import record_position
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.number_sequence import NumberFormat, number_format
from tenten.runtime.settings import Settings
from tenten.schemas.messages import TransactionReply, transaction_reply_from_avro
from tenten.schemas.tables.headquarters import sales_order_sequences
from tenten.schemas.topics import RETAIL_TRANSACTIONS_DLQ, TRANSACTION_REPLIES


@dataclass(slots=True, kw_only=True)
class LostTransactions:
    """The transactions that were taken back."""

    sales_orders: int = 0
    """Orders that have their number again."""
    without_record: set[str] = field(default_factory=set)
    """Orders that have no sales order, although stores were told its number: they are not on `retail-transactions` any
    more, or another order has the number.
    """


def recover_transactions(settings: Settings, engine: Engine, read: Input, progress: Progress) -> LostTransactions:
    """Take back orders, sales and ends of day that the group had processed. `read` is the input of its worker.

    Idempotent. Raises: `KafkaRefused`, `KafkaException`; errors of the database.
    """
    _ingest_again(settings, engine, read, progress)
    lost, writers = LostTransactions(), writer_schemas(settings)
    largest: dict[str, int] = {}
    formats, channels = _formats(engine), _known_channels(engine).legal_entity_by_channel
    for messages in topic_batches(settings, TRANSACTION_REPLIES, progress):
        told = _told(messages, writers)
        for reply in told.values():
            _note_number(channels, formats, largest, reply)
        with engine.begin() as headquarters:
            _apply(headquarters, lost, told)
    with engine.begin() as headquarters:
        _advance_sequences(headquarters, largest)
    return lost


def _ingest_again(settings: Settings, engine: Engine, read: Input, progress: Progress) -> None:
    """Ingest the records between the database's positions and the committed offsets; move the positions there."""
    starts, targets = read.starts(), read.processed()
    writers = writer_schemas(settings)
    refused = refused_records(settings, RETAIL_TRANSACTIONS_DLQ, progress)
    channels = _known_channels(engine)
    for records in records_between(settings, read.name, starts, targets, progress):
        messages = [message for message in records if record_position(message) not in refused]
        classified = decode_and_classify(
            [message.key() for message in messages],
            [message.value() for message in messages],
            writers,
            channels,
            record_positions(read.name, messages),
            partitions=read.topic.partitions,
        )
        ingest(engine, classified, StreamPositions(stream=read.stream, starts={}, next_offsets={}))
    with engine.begin() as headquarters:
        reached = StreamPositions(stream=read.stream, starts=dict.fromkeys(targets, 0), next_offsets=targets)
        advance_positions(headquarters, reached)


def _told(messages: Iterable[Message], writers: WriterSchemas) -> dict[str, TransactionReply]:
    """By transaction: the reply with the highest number. A reply that cannot be read tells nothing here."""
    told: dict[str, TransactionReply] = {}
    for message in messages:
        try:
            reply = transaction_reply_from_avro(writers.decode(message.value() or b"", contract("TransactionReply")))
        except Unreadable:
            continue
        before = told.get(reply.transaction_id)
        if before is None or before.sequence <= reply.sequence:
            told[reply.transaction_id] = reply
    return told


def _formats(engine: Engine) -> dict[str, NumberFormat]:
    """The format of sales order numbers, by legal entity."""
    query = select(sales_order_sequences.c.legal_entity, sales_order_sequences.c.format)
    with engine.begin() as headquarters:
        return {row.legal_entity: number_format(row.format) for row in headquarters.execute(query)}


def _known_channels(engine: Engine) -> KnownChannels:
    """What the registry has, which may be older than the records, too."""
    registry = ChannelRegistry(engine)
    registry.refresh()
    return registry.known


def _note_number(
    channels: Mapping[str, str], formats: Mapping[str, NumberFormat], largest: dict[str, int], reply: TransactionReply
) -> None:
    """Remember the number of a sales order if it is the largest of its legal entity."""
    entity = channels.get(reply.channel_id, "")
    if reply.sales_order is None or entity not in formats:
        return
    written = formats[entity]
    digits = reply.sales_order.removeprefix(written.before).removesuffix(written.after)
    if digits.isascii() and digits.isdigit():
        largest[entity] = max(largest.get(entity, 0), int(digits))


def _apply(headquarters: Connection, lost: LostTransactions, told: Mapping[str, TransactionReply]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "transaction_id": reply.transaction_id,
            "channel_id": reply.channel_id,
            "status": reply.status,
            "sales_order": reply.sales_order,
            "sequence": reply.sequence,
        }
        for reply in told.values()
    ]
    parameters = {"told": json.dumps(rows), "now": datetime.now(UTC)}
    lost.sales_orders += headquarters.execute(_SYNCHRONIZE, parameters).rowcount
    headquarters.execute(_NUMBER_REPLIES, parameters)
    headquarters.execute(_NUMBER_STATEMENT_REPLIES, parameters)
    lost.without_record.update(headquarters.scalars(_WITHOUT_RECORD, parameters))


_TOLD: Final = """
    json_to_recordset(CAST(:told AS json))
    AS told (transaction_id uuid, channel_id text, status text, sales_order text, sequence bigint)
"""

_SYNCHRONIZE: Final = text(
    f"""
    WITH synchronized AS (
        UPDATE retail_transactions AS sold
        SET status = 'synchronized', reasons = '[]', changed_at = :now, answer = greatest(sold.answer, told.sequence),
            account_number = (SELECT account_number FROM customers WHERE customers.customer_id = sold.customer_id)
        FROM {_TOLD}
        WHERE sold.transaction_id = told.transaction_id AND sold.channel_id = told.channel_id
          AND told.status = 'synchronized' AND sold.status <> 'synchronized' AND sold.answer <= told.sequence
          AND NOT EXISTS (
              SELECT FROM sales_orders AS taken
              WHERE taken.legal_entity = sold.legal_entity AND taken.sales_order = told.sales_order
          )
        RETURNING sold.*, told.sales_order
    )
    INSERT INTO sales_orders (
        legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
        currency, total, delivery_mode, delivery_address, created_at
    )
    SELECT legal_entity, sales_order, transaction_id, channel_id, business_date, customer_id, account_number,
           currency, total, delivery.delivery_mode, delivery.delivery_address, :now
    FROM synchronized, json_to_record(synchronized.content) AS delivery (delivery_mode text, delivery_address json)
    WHERE sales_order IS NOT NULL
    """  # noqa: S608 - constants of this module
)
"""Transactions that a store was told to be synchronized are, with the sales order number that it was told."""

_NUMBER_REPLIES: Final = text(
    f"""
    UPDATE retail_transactions AS sold SET answer = told.sequence FROM {_TOLD}
    WHERE sold.transaction_id = told.transaction_id AND sold.channel_id = told.channel_id
      AND sold.answer < told.sequence
    """  # noqa: S608 - constants of this module
)
"""The next reply has a higher number than the last one: a store takes no other."""

_NUMBER_STATEMENT_REPLIES: Final = text(
    f"""
    UPDATE statements AS closed SET answer = told.sequence FROM {_TOLD}
    WHERE closed.statement_id = told.transaction_id AND closed.channel_id = told.channel_id
      AND closed.answer < told.sequence
    """  # noqa: S608 - constants of this module
)

_WITHOUT_RECORD: Final = text(
    f"""
    SELECT told.transaction_id::text FROM {_TOLD}
    WHERE told.sales_order IS NOT NULL
      AND NOT EXISTS (SELECT FROM sales_orders AS known WHERE known.transaction_id = told.transaction_id)
    """  # noqa: S608 - constants of this module
)


def _advance_sequences(headquarters: Connection, largest: Mapping[str, int]) -> None:
    """Advance the sequences of sales order numbers past every number that was told."""
    table = sales_order_sequences
    for legal_entity, number in sorted(largest.items()):
        headquarters.execute(
            update(table).where(table.c.legal_entity == legal_entity, table.c.next <= number).values(next=number + 1)
        )

"""The evidence at the end of a test: every record of the topics and every row of the databases.

Read with plain clients, from the beginning; imports nothing of the product.
"""

import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from psycopg.rows import dict_row

from tests.faults.states import Row, State, state_of_rows

TOPICS: Final = (
    "async-customers",
    "customers",
    "channel-replies",
    "async-customers.dlq",
    "retail-transactions",
    "retail-transactions.dlq",
    "transaction-replies",
    "channel-settings",
    "joins",
    "headquarters-status",
    "erasures",
)
READ_BY: Final = {"headquarters": "async-customers", "transactions": "retail-transactions"}
"""By consumer group at headquarters: the topic that it reads."""
_RESPONSE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1
_WITHOUT_LEADER: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as a topic has it."""

    topic: str
    """Without prefix."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

    @property
    def place(self) -> str:
        """Topic, partition and offset, for messages."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesTables:
    """Headquarters' tables of transactions and statements."""

    transactions: Mapping[str, Row]
    """Orders and cash-and-carry by transaction id."""
    sequences: Mapping[str, Row]
    """Of sales order numbers, by legal entity."""
    orders: tuple[Row, ...]
    order_lines: tuple[Row, ...]
    statements: Mapping[str, Row]
    """By statement id."""
    listed: tuple[Row, ...]
    statement_lines: tuple[Row, ...]
    replies_due: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadquartersTables:
    """Headquarters' tables."""

    customers: Mapping[str, Row]
    """By customer id."""
    states: Mapping[str, State]
    """By customer id: the customer with addresses and contacts."""
    log: Mapping[str, Row]
    """By event id."""
    sequences: Mapping[str, Row]
    """By legal entity."""
    positions: tuple[Row, ...]
    held: tuple[Row, ...]
    """The events that could not be judged yet, or whose reply was not sent yet."""
    sales: SalesTables


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTables:
    """A channel's tables."""

    customers: Mapping[str, Row]
    states: Mapping[str, State]
    outbox: tuple[Row, ...]
    queue: frozenset[int]
    """The sequences of the outbox's rows that are still to be sent."""
    positions: tuple[Row, ...]


@dataclass(slots=True, kw_only=True)
class Evidence:
    """The evidence. The lists of records are ordered by partition and offset."""

    committed: Mapping[str, tuple[Record, ...]]
    """By topic without prefix: the committed records."""
    open_transactions: tuple[str, ...]
    """Partitions whose last stable offset is before their end."""
    headquarters: HeadquartersTables
    group_offsets: Mapping[str, Mapping[int, int]]
    """By group and partition: the committed offsets of headquarters' groups."""
    channels: Mapping[str, ChannelTables] = field(default_factory=dict)
    earlier: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    """By topic without prefix: the committed records of topics of this name that the test has deleted, oldest first."""


def gather(
    bootstrap_servers: str, prefix: str, headquarters_url: str, channels: Mapping[str, str] | None = None
) -> Evidence:
    """Read everything with this prefix and in these databases (`channels`: address by channel name)."""
    return Evidence(
        committed=_read_topics(bootstrap_servers, prefix, TOPICS),
        open_transactions=_open_transactions(bootstrap_servers, prefix),
        headquarters=read_headquarters(headquarters_url),
        group_offsets={group: group_offsets(bootstrap_servers, prefix, group) for group in READ_BY},
        channels={name: read_channel(url) for name, url in (channels or {}).items()},
    )


def read_topic(bootstrap_servers: str, prefix: str, name: str) -> tuple[Record, ...]:
    """Every committed record of a topic up to the end that it has now, ordered by partition and offset."""
    return _read_topics(bootstrap_servers, prefix, (name,))[name]


def _read_topics(bootstrap_servers: str, prefix: str, names: Iterable[str]) -> dict[str, tuple[Record, ...]]:
    """The same for several topics, by name, with one consumer."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{prefix}checker",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    records: dict[str, list[Record]] = {name: [] for name in names}
    try:
        partitions = [
            (name, partition)
            for name in records
            for partition in consumer.list_topics(prefix + name, _RESPONSE_SECONDS).topics[prefix + name].partitions
        ]
        for record in _read_to_end(consumer, prefix, partitions):
            records[record.topic].append(record)
    finally:
        consumer.close()
    return {
        name: tuple(sorted(found, key=lambda record: (record.partition, record.offset)))
        for name, found in records.items()
    }


def _read_to_end(consumer: Consumer, prefix: str, partitions: Iterable[tuple[str, int]]) -> Iterable[Record]:
    unread = set(partitions)
    starts = [
        TopicPartition(prefix + name, partition, _first_offset(consumer, prefix + name, partition))
        for name, partition in sorted(unread)
    ]
    consumer.assign(starts)
    while unread:
        message = consumer.poll(_RESPONSE_SECONDS)
        assert message is not None, f"no end of {sorted(unread)}"
        error = message.error()
        name, partition, offset = (message.topic() or "").removeprefix(prefix), message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        if error is None:
            yield Record(
                topic=name,
                partition=partition,
                offset=offset,
                key=_bytes(message.key()),
                value=_bytes(message.value()),
                headers=tuple((text, _bytes(value)) for text, value in _pairs(message.headers())),
                timestamp_ms=message.timestamp()[1],
            )
        elif error.code() == KafkaError._PARTITION_EOF:
            unread.discard((name, partition))
        else:
            raise KafkaException(error)


def _first_offset(consumer: Consumer, topic: str, partition: int) -> int:
    """Asked again for a while: a partition has no leader just after a broker was started."""
    deadline = time.monotonic() + _RESPONSE_SECONDS
    while True:
        try:
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), _RESPONSE_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in _WITHOUT_LEADER or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return int(low)


def _bytes(value: Any) -> bytes | None:
    """The client gives bytes where its types allow text."""
    return None if value is None else bytes(value)


def _pairs(headers: Any) -> list[tuple[str, Any]]:
    return list(headers or [])


def _open_transactions(bootstrap_servers: str, prefix: str) -> tuple[str, ...]:
    """Partitions with a transaction that was neither committed nor aborted."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    latest = {
        TopicPartition(prefix + name, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]  # its own stubs lack it
        for name in TOPICS
        for partition in admin.list_topics(prefix + name, timeout=_RESPONSE_SECONDS).topics[prefix + name].partitions
    }
    ends = {}
    for isolation in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
        asked = admin.list_offsets(latest, isolation_level=isolation, request_timeout=_RESPONSE_SECONDS)
        ends[isolation] = {
            (partition.topic, partition.partition): future.result().offset for partition, future in asked.items()
        }
    stable, last = ends[IsolationLevel.READ_COMMITTED], ends[IsolationLevel.READ_UNCOMMITTED]
    return tuple(f"{topic}/{number}" for (topic, number), end in sorted(last.items()) if stable[topic, number] < end)


def group_offsets(bootstrap_servers: str, prefix: str, group: str) -> dict[int, int]:
    """By partition: the offset that a group of headquarters has committed."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{prefix}{group}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    try:
        name = f"{prefix}{READ_BY[group]}"
        partitions = consumer.list_topics(name, timeout=_RESPONSE_SECONDS).topics[name].partitions
        asked = [TopicPartition(name, partition) for partition in partitions]
        return {
            position.partition: position.offset
            for position in consumer.committed(asked, _RESPONSE_SECONDS)
            if position.offset >= 0
        }
    finally:
        consumer.close()


def read_headquarters(url: str) -> HeadquartersTables:
    """Headquarters' tables in one view of the database."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608  # names from here
            for table in (
                "customers",
                "customer_addresses",
                "customer_contacts",
                "synchronization_log",
                "number_sequences",
                "positions",
                "held_events",
                *_SALES,
            )
        }
    return HeadquartersTables(
        customers=_by_id(rows["customers"]),
        states=_states(rows["customers"], rows["customer_addresses"], rows["customer_contacts"]),
        log={str(row["event_id"]): row for row in rows["synchronization_log"]},
        sequences={row["legal_entity"]: row for row in rows["number_sequences"]},
        positions=tuple(rows["positions"]),
        held=tuple(rows["held_events"]),
        sales=SalesTables(
            transactions={str(row["transaction_id"]): row for row in rows["retail_transactions"]},
            sequences={row["legal_entity"]: row for row in rows["sales_order_sequences"]},
            orders=tuple(rows["sales_orders"]),
            order_lines=tuple(rows["sales_order_lines"]),
            statements={str(row["statement_id"]): row for row in rows["statements"]},
            listed=tuple(rows["statement_listed"]),
            statement_lines=tuple(rows["statement_lines"]),
            replies_due=tuple(rows["replies_due"]),
        ),
    )


_SALES: Final = (
    "retail_transactions",
    "sales_order_sequences",
    "sales_orders",
    "sales_order_lines",
    "statements",
    "statement_listed",
    "statement_lines",
    "replies_due",
)


def read_channel(url: str) -> ChannelTables:
    """A channel's tables in one view of the database, PostgreSQL or SQLite."""
    names = ("customers", "customer_addresses", "customer_contacts", "outbox", "outbox_queue", "positions")
    rows = _read_sqlite(url.removeprefix("sqlite:///"), names) if url.startswith("sqlite") else _read_tables(url, names)
    return ChannelTables(
        customers=_by_id(rows["customers"]),
        states=_states(rows["customers"], rows["customer_addresses"], rows["customer_contacts"]),
        outbox=tuple(sorted(rows["outbox"], key=lambda row: int(row["sequence"]))),
        queue=frozenset(int(row["sequence"]) for row in rows["outbox_queue"]),
        positions=tuple(rows["positions"]),
    )


def _read_tables(url: str, names: Iterable[str]) -> dict[str, list[Row]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {name: [*connection.execute(f"SELECT * FROM {name}").fetchall()] for name in names}  # noqa: S608  # as above


def _read_sqlite(path: str, names: Iterable[str]) -> dict[str, list[Row]]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}  # noqa: S608  # as above
    finally:
        connection.close()


def _by_id(customers: Iterable[Row]) -> dict[str, Row]:
    return {str(row["customer_id"]): row for row in customers}


def _states(customers: Iterable[Row], addresses: Iterable[Row], contacts: Iterable[Row]) -> dict[str, State]:
    children: dict[str, tuple[list[Row], list[Row]]] = {str(row["customer_id"]): ([], []) for row in customers}
    orphans: tuple[list[Row], list[Row]] = ([], [])
    for row in addresses:
        children.get(str(row["customer_id"]), orphans)[0].append(row)
    for row in contacts:
        children.get(str(row["customer_id"]), orphans)[1].append(row)
    assert orphans == ([], []), f"addresses or contacts of customers that do not exist: {orphans}"
    return {str(row["customer_id"]): state_of_rows(row, *children[str(row["customer_id"])]) for row in customers}


def headers_of(record: Record) -> dict[str, Any]:
    """The headers as text by name, for those that are text."""
    return {name: (value or b"").decode(errors="replace") for name, value in record.headers}

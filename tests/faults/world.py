"""A small history as a perfect headquarters would leave it, written to real topics and tables.

The checker must find no violation in it; each test of the checker plants a bug first.
"""

import json
import sqlite3
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.types.json import Json

from tests.faults.avro import decode, encode
from tests.faults.evidence import READ_BY, TOPICS, Evidence, Record, gather, read_topic
from tests.faults.identity import content_hash
from tests.faults.journal import Journal, Operation, Writer
from tests.faults.traffic import Event, Store
from tests.faults.world_sales import WorldSales

PARTITIONS: Final = 2
_SECONDS: Final = 20.0
_NOON: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
_STATE_COLUMNS: Final = ("address_books", "affiliations", "attributes")

Row = dict[str, Any]


@dataclass(slots=True)
class World:
    """The history as plain values that a test may change."""

    bootstrap_servers: str
    prefix: str
    url: str
    channel: Path
    store: Store
    journal: Journal = field(default_factory=Journal)
    events: list[Event] = field(default_factory=list)
    places: dict[str, Record] = field(default_factory=dict)
    """By event id: its first record."""
    conflict_place: Record | None = None
    """The record with the id of another event."""
    poison: Record | None = None
    customers: dict[str, Row] = field(default_factory=dict)
    """By customer id: the snapshot at headquarters and in the channel; with `erased`."""
    log: dict[str, Row] = field(default_factory=dict)
    snapshots: list[tuple[str, Row | None]] = field(default_factory=list)
    replies: list[Row] = field(default_factory=list)
    dead_letters: list[tuple[Record, bytes | None]] = field(default_factory=list)
    next_number: int = 1
    positions: dict[int, int] = field(default_factory=dict)
    group_offsets: dict[int, int] = field(default_factory=dict)
    channel_customers: dict[str, Row] = field(default_factory=dict)
    outbox: list[Row] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    """The sequences of the outbox's rows that are still to be sent."""
    sales: WorldSales = field(default_factory=WorldSales)
    held: list[Row] = field(default_factory=list)

    def live(self) -> None:
        """The history: three creates, an edit, a repeat, a rejection, an erasure, an event with the id of another one,
        an unreadable record; and sales, some with these events inside.
        """
        self._create_topics()
        first, second, third = (self.store.create(last_name=f"Lee {number}") for number in range(3))
        edit = self.store.edit(first["customer_id"], title="Dr.")
        wrong = self.store.create(first_name="", last_name="")
        erasure = self.store.erase(third["customer_id"])
        conflict = second | {"changed": ["title"]}
        self.events = [first, second, third, edit, edit, wrong, erasure, first, wrong, conflict]
        self.sales.sell(first, second, third, wrong)
        writer = Writer(self.bootstrap_servers, self.prefix, self.journal)
        for event in self.events:
            writer.send(event)
        writer.write(Operation(key=b"k", value=b"poison", headers=(("id", b"1"),)))
        self.sales.write_topic(writer, self.bootstrap_servers, self.prefix)
        self._find_places()
        for event in (first, second, third):
            self._created(event)
        self._changed(edit, "synchronized", title="Dr.")
        self._replied(edit)
        self._rejected(wrong)
        self._erased(erasure)
        self._conflicted(conflict)
        numbers = {key: customer["account_number"] for key, customer in self.customers.items()}
        self.sales.ingest(numbers, self.log[wrong["event_id"]]["reasons"])
        self.channel_customers = {
            key: deepcopy(customer) for key, customer in self.customers.items() if key != third["customer_id"]
        }

    def _create_topics(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        new = [NewTopic(self.prefix + name, num_partitions=PARTITIONS) for name in TOPICS]
        for future in admin.create_topics(new).values():
            future.result(_SECONDS)

    def _find_places(self) -> None:
        for record in read_topic(self.bootstrap_servers, self.prefix, "async-customers"):
            self.positions[record.partition] = self.group_offsets[record.partition] = record.offset + 1
            if record.value == b"poison":
                self.poison = record
                self.dead_letters.append((record, record.value))
            else:
                first = self.places.setdefault(decode("CustomerEvent", record.value or b"")["event_id"], record)
                if first.value != record.value:
                    self.conflict_place = record
        assert self.sales.poison is not None
        self.dead_letters.append((self.sales.poison, self.sales.poison.value))

    def _created(self, event: Event) -> None:
        number = f"C-{self.next_number:08}"
        self.next_number += 1
        state = decode("CustomerEvent", encode("CustomerEvent", event))["customer"]
        self.customers[event["customer_id"]] = {
            "customer_id": event["customer_id"],
            "account_number": number,
            "version": 1,
            "updated_at": _NOON,
            "customer": state,
            "erased": False,
        }
        self._settled(event, "synchronized")

    def _changed(self, event: Event, outcome: str, **fields: Any) -> None:
        customer = self.customers[event["customer_id"]]
        customer["version"] += 1
        customer["customer"] |= fields
        self._settled(event, outcome)

    def _erased(self, event: Event) -> None:
        self.customers[event["customer_id"]]["erased"] = True
        self._changed(event, "erased")

    def _rejected(self, event: Event) -> None:
        self._settled(event, "rejected", [{"field": "last_name", "code": "required", "text": "A name is needed."}])

    def _conflicted(self, event: Event) -> None:
        self.log[event["event_id"]]["conflicts"] += 1
        self._replied(event)
        assert self.conflict_place is not None
        self.replies[-1] |= {
            "outcome": "REJECTED",
            "reasons": [{"field": "event_id", "code": "duplicate", "text": "Another event has this id."}],
            "account_number": None,
            "version": None,
            "input_partition": self.conflict_place.partition,
            "input_offset": self.conflict_place.offset,
        }

    def _settled(self, event: Event, outcome: str, reasons: list[Row] | None = None) -> None:
        customer = self.customers.get(event["customer_id"], {"account_number": None, "version": None})
        self.log[event["event_id"]] = {
            "event": event,
            "outcome": outcome,
            "reasons": reasons or [],
            "account_number": customer["account_number"],
            "version": customer["version"],
            "repeats": self.events.count(event) - 1,
            "content_hash": content_hash(self.places[event["event_id"]].value or b"", event),
            "conflicts": 0,
        }
        if "customer" in customer:
            self.snapshots.append((event["customer_id"], None if customer["erased"] else deepcopy(customer)))
        self._replied(event)

    def _replied(self, event: Event) -> None:
        row = self.log[event["event_id"]]
        self.replies.append(
            {
                "channel_id": event["channel_id"],
                "event_id": event["event_id"],
                "customer_id": event["customer_id"],
                "outcome": row["outcome"].upper(),
                "reasons": row["reasons"],
                "account_number": row["account_number"],
                "version": row["version"],
                "answered_at": _NOON,
                "judgement": 1,
                "input_partition": self.places[event["event_id"]].partition,
                "input_offset": self.places[event["event_id"]].offset,
            }
        )

    def write(self) -> None:
        """Write topics, tables and group offsets."""
        self._write_topics()
        self._write_headquarters()
        self._write_channel()
        for group, committed in (("headquarters", self.group_offsets), ("transactions", self.sales.group_offsets)):
            consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": f"{self.prefix}{group}"})
            topic = f"{self.prefix}{READ_BY[group]}"
            offsets = [TopicPartition(topic, partition, offset) for partition, offset in committed.items()]
            consumer.commit(offsets=offsets, asynchronous=False)
            consumer.close()

    def producer(self) -> Producer:
        """A producer with an open transaction."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "partitioner": "murmur2_random",
                "transactional.id": f"{self.prefix}world",
            }
        )
        producer.init_transactions(_SECONDS)
        producer.begin_transaction()
        return producer

    def _write_topics(self) -> None:
        producer = self.producer()
        for key, snapshot in self.snapshots:
            value = None if snapshot is None else encode("Customer", snapshot)
            producer.produce(f"{self.prefix}customers", value, key)
        for reply in self.replies:
            producer.produce(f"{self.prefix}channel-replies", encode("Reply", reply), reply["channel_id"])
        for reply in self.sales.replies:
            value = encode("TransactionReply", reply)
            producer.produce(f"{self.prefix}transaction-replies", value, reply["channel_id"])
        for origin, value in self.dead_letters:
            where = {"partition": str(origin.partition), "offset": str(origin.offset)}
            about = [(f"__connect.errors.{name}", text.encode()) for name, text in where.items()]
            headers: list[tuple[str, str | bytes | None]] = [*origin.headers, *about]
            topic = f"{self.prefix}{origin.topic}.dlq"
            producer.produce(topic, value, origin.key, headers=headers, timestamp=origin.timestamp_ms)
        producer.commit_transaction(_SECONDS)

    def _write_headquarters(self) -> None:
        with psycopg.connect(self.url) as connection:
            for customer in self.customers.values():
                erased_at = _NOON if customer["erased"] else None
                state = customer["customer"] | {name: Json([]) for name in _STATE_COLUMNS}
                if not customer["erased"]:
                    state["affiliations"] = Json(customer["customer"]["affiliations"])
                _insert(connection, "customers", {**_columns(customer, state), "erased_at": erased_at})
                for part, table in (("addresses", "customer_addresses"), ("contacts", "customer_contacts")):
                    for child in [] if customer["erased"] else customer["customer"][part]:
                        _insert(connection, table, {"customer_id": customer["customer_id"], **child})
            for event_id, row in self.log.items():
                _insert(connection, "synchronization_log", self._log_columns(event_id, row))
            for row in self.held:
                _insert(connection, "held_events", row)
            sequence = {"legal_entity": "usrt", "format": "C-########", "next": self.next_number, "continuous": True}
            _insert(connection, "number_sequences", sequence)
            for partition, offset in self.positions.items():
                position = {"consumer_group": "headquarters", "topic_id": "1", "partition": partition}
                _insert(connection, "positions", {**position, "next_offset": offset})
            self.sales.write_tables(connection)

    def _log_columns(self, event_id: str, row: Row) -> Row:
        place = self.places[event_id]
        return {
            "event_id": event_id,
            "customer_id": row["event"]["customer_id"],
            "channel_id": row["event"]["channel_id"],
            "kind": row["event"]["kind"].lower(),
            "outcome": row["outcome"],
            "reasons": Json(row["reasons"]),
            "account_number": row["account_number"],
            "version": row["version"],
            "repeats": row["repeats"],
            "content_hash": row["content_hash"],
            "conflicts": row["conflicts"],
            "topic": "async-customers",
            "partition": place.partition,
            "offset": place.offset,
            "occurred_at": row["event"]["occurred_at"],
            "received_at": _NOON,
        }

    def _write_channel(self) -> None:
        connection = sqlite3.connect(self.channel)
        for customer in self.channel_customers.values():
            state = customer["customer"] | {name: json.dumps(customer["customer"][name]) for name in _STATE_COLUMNS}
            _insert(connection, "customers", {**_columns(customer, state), "search_name": ""})
            for part, table in (("addresses", "customer_addresses"), ("contacts", "customer_contacts")):
                for child in customer["customer"][part]:
                    _insert(connection, table, {"customer_id": customer["customer_id"], **child})
        for row in self.outbox:
            _insert(connection, "outbox", row)
        for sequence in self.queue:
            _insert(connection, "outbox_queue", {"sequence": sequence})
        for partition in range(PARTITIONS):
            position = {"topic": f"{self.prefix}customers", "topic_id": "1", "partition": partition}
            _insert(connection, "positions", {**position, "next_offset": 1_000})
        connection.commit()
        connection.close()

    def gather(self) -> Evidence:
        """Read the evidence."""
        channels = {"houston": f"sqlite:///{self.channel}"}
        return gather(self.bootstrap_servers, self.prefix, self.url, channels)


def _columns(customer: Row, state: Row) -> Row:
    """The columns of a customer's row; the texts of an erased customer are empty."""
    fields = {name: value for name, value in state.items() if name not in ("addresses", "contacts")}
    if customer["erased"]:
        fields |= dict.fromkeys(("title", "first_name", "last_name"), "")
    return {
        "customer_id": customer["customer_id"],
        "account_number": customer["account_number"],
        "version": customer["version"],
        "updated_at": customer["updated_at"],
        **fields,
    }


def _insert(connection: "psycopg.Connection[Any] | sqlite3.Connection", table: str, row: Row) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    if isinstance(connection, sqlite3.Connection):
        marks = ", ".join("?" for _ in row)
        values = [value.isoformat() if isinstance(value, datetime) else value for value in row.values()]
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)  # noqa: S608  # names from here
    else:
        marks = ", ".join("%s" for _ in row)
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), list(row.values()))  # noqa: S608  # as above

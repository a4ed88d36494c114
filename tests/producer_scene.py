"""An open channel for tests of a store, with headquarters' replies written as rows, and a reader of its topics.

Replies are written here as rows, independently of the production code.
"""

import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from confluent_kafka import Consumer, Message, TopicPartition
from sqlalchemy import Table, select, update

from tenten.avro.wire import WriterSchemas, contract
from tenten.kafka.client_config import consumer_configuration
from tenten.kafka.topics_admin import apply_topics
from tenten.producers import OpenChannel, open_channel
from tenten.producers.outbox.folding import FOLDED
from tenten.producers.relay import run as relay
from tenten.runtime.settings import Settings
from tenten.schemas.messages import CustomerEvent, Reason, RetailTransaction, event_from_avro, transaction_from_avro
from tenten.schemas.tables import channel
from tenten.schemas.topics import ASYNC_CUSTOMERS, Topic
from tenten.sql.customer_rows import CHANNEL_TABLES, read_customers, write_customers
from tests import settings_file
from tests.databases import channel_tables
from tests.settings_file import USRT, default_customer, general, kafka
from tests.waiting import wait_for

HOUSTON: Final = "houston"
DEADLINE_SECONDS: Final = 180.0
"""The deadline of every wait."""

ALL_ROWS: Final = 1_000_000_000

REASON: Final = Reason(field="last_name", code="too_long", text="At most 100 characters are allowed.")


class Store:
    """The open channel `houston`, with its tables and topics."""

    def __init__(self, settings: Settings, opened: OpenChannel, toml: Path) -> None:
        self.settings = settings
        self.channel = opened
        self.toml = toml

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """A table's rows, ordered by primary key."""
        with self.channel.reading() as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]

    def counts(self) -> dict[str, int]:
        """The row counts of the tables that a change of a customer writes."""
        tables = (channel.customers, channel.customer_addresses, channel.customer_contacts, channel.outbox)
        return {table.name: len(self.rows(table)) for table in tables}

    def events(self) -> list[CustomerEvent]:
        """The customers' events in the outbox, oldest first, without those that are part of a later one."""
        rows = [row for row in self.rows(channel.outbox) if row["outcome"] != FOLDED]
        return [decoded(row["payload"]) for row in rows if row["aggregatetype"] == "customer"]

    def reserve(self, to: int) -> None:
        """The relay may have read the rows up to this sequence."""
        with self.channel.engine.begin() as connection:
            connection.execute(update(channel.outbox_reservation).values(reserved_to=to))

    def transactions(self) -> list[RetailTransaction]:
        """The orders, sales and ends of day in the outbox, oldest first."""
        rows = self.rows(channel.outbox)
        return [decoded_transaction(row["payload"]) for row in rows if row["aggregatetype"] == "retail_transaction"]

    def reply(self, event_id: str, outcome: str, **columns: Any) -> None:
        """Settle an event as settlement does; a rejected or held event stays unsettled."""
        values = {"outcome": outcome, **columns}
        if outcome not in ("rejected", "held"):
            values["settled_at"] = _now()
        with self.channel.engine.begin() as connection:
            connection.execute(update(channel.outbox).where(channel.outbox.c.id == event_id).values(values))

    def reject(self, event_id: str) -> None:
        """Headquarters rejects an event."""
        reasons = [{"field": REASON.field, "code": REASON.code, "text": REASON.text}]
        self.reply(event_id, "rejected", reasons=reasons)

    def hold(self, event_id: str) -> None:
        """Headquarters cannot judge an event yet."""
        reasons = [{"field": "channel_id", "code": "unknown_channel", "text": "Headquarters has no channel yet."}]
        self.reply(event_id, "held", reasons=reasons)

    def synchronize(self, customer_id: str, account_number: str, version: int = 1) -> None:
        """Headquarters accepts the customer unchanged: its events are settled, and its snapshot has arrived."""
        settled = {"settled_at": _now(), "outcome": "synchronized", "version": version}
        with self.channel.engine.begin() as connection:
            before = read_customers(connection, CHANNEL_TABLES, [customer_id])
            stored = replace(before[customer_id], account_number=account_number, version=version)
            write_customers(connection, CHANNEL_TABLES, [stored], before)
            connection.execute(
                update(channel.outbox).where(channel.outbox.c.aggregateid == customer_id).values(settled)
            )

    @contextmanager
    def relaying(self) -> Iterator[None]:
        """Run the relay in a thread during the block. Raises: the relay's error."""
        stop = Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                relay.run(HOUSTON, self.settings, stop)
            except BaseException as error:  # noqa: BLE001 - the test raises it
                errors.append(error)

        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    def wait_until_sent(self) -> None:
        """Wait until every row of the outbox is sent."""
        wait_for(lambda: not self.rows(channel.outbox_queue), "everything to be sent")

    def unsent_ids(self) -> list[str]:
        """The ids of the outbox's rows that are still to be sent, in order."""
        queued = {row["sequence"] for row in self.rows(channel.outbox_queue)}
        return [row["id"] for row in self.rows(channel.outbox) if row["sequence"] in queued]

    def topic(self, topic: Topic = ASYNC_CUSTOMERS) -> list[Message]:
        """All records of a topic, those of a partition in order."""
        name = self.settings.topic(topic)
        consumer = Consumer(consumer_configuration(self.settings, **{"group.id": name, "enable.partition.eof": True}))
        open_partitions = set(range(self.settings.partitions_of(topic)))
        consumer.assign([TopicPartition(name, partition, 0) for partition in open_partitions])
        messages = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while open_partitions:
            assert time.monotonic() < deadline, "the topic has no end"
            for message in consumer.consume(1000, timeout=0.1):
                if message.error() is None:
                    messages.append(message)
                else:
                    open_partitions.discard(message.partition())
        consumer.close()
        return messages


def event_ids(messages: Sequence[Message]) -> list[str]:
    """The ids in the headers of these records."""
    return [str(dict(message.headers() or [])["id"], "ascii") for message in messages]  # type: ignore[arg-type]  # bytes


def decoded(payload: bytes | None) -> CustomerEvent:
    """The event in a payload."""
    return event_from_avro(WriterSchemas().decode(payload or b"", contract("CustomerEvent")))


def decoded_transaction(payload: bytes | None) -> RetailTransaction:
    """The order, sale or end of day in a payload."""
    return transaction_from_avro(WriterSchemas().decode(payload or b"", contract("RetailTransaction")))


@contextmanager
def set_store(directory: Path, url: str, *, bootstrap_servers: str | None = None, prefix: str = "") -> Iterator[Store]:
    """The channel with its tables in this database; with its topics, if a broker is given.

    No event is folded: all that will be in the outbox counts as read by the relay.
    """
    defaults = {"customer_group": "10", "receipt_preference": "email", "affiliations": ["friends"]}
    parts = [
        general(prefix),
        kafka(bootstrap_servers or "127.0.0.1:1"),
        USRT,
        settings_file.channel(HOUSTON, url, address_books=["US"]),
        default_customer(HOUSTON, defaults),
        settings_file.channel("dallas"),
    ]
    document = "\n".join(parts)
    toml = directory / "tenten.toml"
    toml.write_text(document)
    settings = Settings.model_validate(tomllib.loads(document), context={"directory": directory})
    if bootstrap_servers is not None:
        apply_topics(settings)
    for name in settings.channels:
        channel_tables(settings.channel(name).database)
    with open_channel(settings, HOUSTON) as opened:
        store = Store(settings, opened, toml)
        store.reserve(to=ALL_ROWS)
        yield store


def _now() -> datetime:
    return datetime.now(UTC)

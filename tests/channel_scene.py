"""A scene for tests of a channel: its database, topics of its own, and a headquarters whose records the test writes.

Headquarters is a plain transactional producer here: what it writes are real records on the real topics, in real
transactions.
"""

import itertools
import json
import os
import signal
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec
from sqlalchemy import Engine, Table, insert, select, update

from tenten.avro.wire import contract, encode, released_contract
from tenten.consumers.channel import loop
from tenten.kafka.client_waits import wait_for_leaders
from tenten.kafka.offsets import last_stable_offsets
from tenten.kafka.partitioner import partition_of
from tenten.kafka.topics_admin import admin_client, apply_topics, topic_ids
from tenten.runtime.errors import KafkaRefused
from tenten.runtime.settings import Settings
from tenten.schemas.messages import (
    Address,
    Contact,
    Customer,
    CustomerEvent,
    CustomerState,
    EventKind,
    Outcome,
    Reason,
    Reply,
    SupersededEvent,
    TopicStatus,
    TransactionReply,
    to_avro,
)
from tenten.schemas.tables import channel
from tenten.schemas.topics import ALL, CHANNEL_REPLIES, CUSTOMERS, HEADQUARTERS_STATUS, TRANSACTION_REPLIES
from tenten.sql.engine import consistent_view, open_database
from tests import settings_file
from tests.databases import channel_tables
from tests.forked import ended_with_block, fork_program
from tests.settings_file import DEMF, PARTITIONS, USRT, general, kafka
from tests.threads import Worker
from tests.waiting import wait_for

DEADLINE_SECONDS: Final = 180.0
"""The longest that a test waits."""

AT: Final = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
CHANNEL: Final = "houston"

DISTRIBUTION: Final = "from tenten.consumers.channel.distribution.run import run; run(settings, channel, stop)"
SETTLEMENT: Final = "from tenten.consumers.channel.settlement.run import run; run(settings, channel, stop)"
RESYNC: Final = "from tenten.consumers.channel.distribution.resync import resync; resync(settings, channel)"
"""Programs for `die_at`."""

_numbers = itertools.count(1)


def guid() -> str:
    """A new GUID."""
    return str(uuid.uuid4())


def state(name: str = "Ann", **fields: Any) -> CustomerState:
    """A customer, by default with one address and two contacts."""
    address, email, phone = guid(), guid(), guid()
    usual: dict[str, Any] = {
        "legal_entity": "usrt",
        "first_name": name,
        "last_name": "Müller",
        "language": "en-US",
        "currency": "USD",
        "primary_address": address,
        "primary_email": email,
        "affiliations": ("gold", "staff"),
        "addresses": (
            Address(address_id=address, purpose="HOME", street="1 Main", city="Houston", country="US", updated_at=AT),
        ),
        "contacts": tuple(
            sorted(
                (
                    Contact(contact_id=email, kind="EMAIL", value="ann@example.com", marketing_consent=True),
                    Contact(contact_id=phone, kind="PHONE", value="+17135550123", description="mobile"),
                ),
                key=lambda contact: contact.contact_id,
            )
        ),
    }
    return CustomerState(**{**usual, **fields})


def customer(name: str = "Ann", *, version: int = 1, customer_id: str | None = None, **fields: Any) -> Customer:
    """A snapshot, as headquarters would send it."""
    return Customer(
        customer_id=customer_id or guid(),
        account_number=f"C-{next(_numbers):08d}",
        version=version,
        updated_at=AT,
        customer=state(name, **fields),
    )


def changed(snapshot: Customer, **fields: Any) -> Customer:
    """The next version of a customer."""
    return replace(snapshot, version=snapshot.version + 1, customer=replace(snapshot.customer, **fields))


def event(
    customer_id: str,
    state: CustomerState,
    changed: Sequence[str],
    supersedes: Sequence[SupersededEvent] = (),
    kind: EventKind = EventKind.EDITED,
) -> CustomerEvent:
    """An event of the channel."""
    return CustomerEvent(
        customer_id=customer_id,
        event_id=guid(),
        channel_id=CHANNEL,
        kind=kind,
        occurred_at=AT,
        changed=tuple(changed),
        supersedes=tuple(supersedes),
        customer=state,
    )


def reply(to: CustomerEvent, outcome: Outcome = Outcome.SYNCHRONIZED, **fields: Any) -> Reply:
    """Headquarters' reply to an event of the channel."""
    return Reply(
        channel_id=CHANNEL,
        event_id=to.event_id,
        customer_id=to.customer_id,
        outcome=outcome,
        answered_at=AT,
        **fields,
    )


def transaction_reply(transaction_id: str, status: str, number: int, **fields: Any) -> TransactionReply:
    """Headquarters' reply with this number to an order, a sale or an end of day of the channel."""
    return TransactionReply(
        channel_id=CHANNEL,
        transaction_id=transaction_id,
        status=status,
        sequence=number,
        answered_at=AT,
        **fields,
    )


def transaction_reply_of_0_1_0(transaction_id: str, status: str, number: int, **fields: Any) -> bytes:
    """The same reply as release 0.1.0 wrote it, to `channel-replies`."""
    record: dict[str, Any] = {
        "channel_id": CHANNEL,
        "event_id": transaction_id,
        "customer_id": "00000000-0000-0000-0000-000000000000",
        "outcome": "REJECTED" if status == "rejected" else "SYNCHRONIZED",
        "reasons": [],
        "account_number": None,
        "version": number,
        "answered_at": AT,
        "transaction_status": status,
        "sales_order": None,
    }
    return encode(released_contract("Reply"), {**record, **fields})


REASON: Final = Reason(field="first_name", code="too_long", text="is longer than 100 characters")


class Headquarters:
    """Writes snapshots and replies, each call one transaction; so every partition ends with a control marker."""

    def __init__(self, bootstrap_servers: str, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": f"{settings.prefix}headquarters",
                "partitioner": "murmur2_random",
            }
        )
        wait_for_leaders(self._producer, [settings.topic(CUSTOMERS)])
        self._producer.init_transactions(DEADLINE_SECONDS)
        self._admin = admin_client(settings)

    def send(self, *snapshots: Customer | str) -> None:
        """Send snapshots; an id alone is a tombstone."""
        self.raw(
            CUSTOMERS.name,
            *(
                (snapshot, None)
                if isinstance(snapshot, str)
                else (snapshot.customer_id, encode(contract("Customer"), to_avro(snapshot)))
                for snapshot in snapshots
            ),
        )

    def reply(self, *replies: Reply | TransactionReply) -> None:
        """Send replies, each kind to its topic in one transaction."""
        for topic, kind in ((CHANNEL_REPLIES, Reply), (TRANSACTION_REPLIES, TransactionReply)):
            values = [
                (reply.channel_id, encode(contract(topic.value), to_avro(reply)))
                for reply in replies
                if isinstance(reply, kind)
            ]
            if values:
                self.raw(topic.name, *values)

    def raw(self, topic: str, *records: tuple[str, bytes | None], abort: bool = False) -> None:
        """Send keys and values as they are, in one transaction."""
        self._producer.begin_transaction()
        for key, value in records:
            while True:
                try:
                    self._producer.produce(self._settings.prefix + topic, value, key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        if abort:
            self._producer.flush(DEADLINE_SECONDS)
            self._producer.abort_transaction(DEADLINE_SECONDS)
        else:
            self._producer.commit_transaction(DEADLINE_SECONDS)
        self._wait_until_stable(self._settings.prefix + topic)

    def _wait_until_stable(self, topic: str) -> None:
        """A commit returns before its markers are in the partitions; readers see it only then."""
        wait_for(
            lambda: (
                self._ends(topic, IsolationLevel.READ_COMMITTED) == self._ends(topic, IsolationLevel.READ_UNCOMMITTED)
            ),
            "the end of the transactions",
        )

    def declare_complete(self, offset: int = 0) -> None:
        """Declare the topic `customers`, as it exists now, complete up to this offset of each partition."""
        name = self._settings.topic(CUSTOMERS)
        status = TopicStatus(
            topic=CUSTOMERS.name,
            topic_id=topic_ids(self._settings, [name])[name].topic_id,
            complete_offsets=(offset,) * PARTITIONS,
            since=AT,
        )
        self.raw(HEADQUARTERS_STATUS.name, (CUSTOMERS.name, encode(contract("TopicStatus"), to_avro(status))))

    def ends(self, topic: str) -> dict[int, int]:
        """The last stable offset of each partition."""
        return self._ends(topic, IsolationLevel.READ_COMMITTED)

    def _ends(self, topic: str, isolation: IsolationLevel) -> dict[int, int]:
        partitions = self._admin.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic].partitions
        specifications = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}  # type: ignore[no-untyped-call]
        while True:
            futures = self._admin.list_offsets(specifications, isolation_level=isolation)
            try:
                return {asked.partition: future.result().offset for asked, future in futures.items()}
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                    raise


@dataclass(slots=True, kw_only=True)
class ChannelScene:
    """One channel, its database, and a headquarters."""

    directory: Path
    settings: Settings
    engine: Engine
    headquarters: Headquarters
    workers: "list[Worker]" = field(default_factory=list)

    @contextmanager
    def running(self, run: Callable[[Settings, str, Event], None]) -> "Iterator[Worker]":
        """A process of the channel in a thread, for as long as the block. Its error is raised."""
        worker = Worker(lambda stop: run(self.settings, CHANNEL, stop))
        self.workers.append(worker)
        try:
            yield worker
        finally:
            self.workers.remove(worker)
            worker.stop()
        worker.check()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Return as soon as the condition holds; fail when a process of the channel dies, or it takes too long."""

        def check() -> None:
            for worker in self.workers:
                worker.check()

        wait_for(condition, what, check=check)

    def wait_until_level(self) -> None:
        """Wait until the channel's positions in `customers` are at the last stable offsets."""
        name = self.settings.topic(CUSTOMERS)
        ends = last_stable_offsets(self.settings, name, self.settings.partitions_of(CUSTOMERS))
        self.wait(lambda: self.positions(name) == ends, "the end of the topic")

    def wait_until_replies_read(self) -> None:
        """Wait until settlement is at the end of the channel's partition of both topics of replies."""
        for topic in (CHANNEL_REPLIES, TRANSACTION_REPLIES):
            name = self.settings.topic(topic)
            partition = partition_of(CHANNEL, PARTITIONS)
            end = self.headquarters.ends(name)[partition]
            self.wait(partial(self._is_at, name, {partition: end}), f"the end of {name}")

    def _is_at(self, topic: str, next_offsets: Mapping[int, int]) -> bool:
        return self.positions(topic) == next_offsets

    def positions(self, topic: str) -> dict[int, int]:
        """Next offsets by partition."""
        # Plain text, because each test has an engine of its own, which would compile a statement again.
        query = "SELECT topic, partition, next_offset FROM positions"
        with consistent_view(self.engine) as connection:
            rows = connection.exec_driver_sql(query).all()
        return {partition: next_offset for name, partition, next_offset in rows if name == topic}

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """A table's rows, ordered by primary key."""
        with consistent_view(self.engine) as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]

    def visible(self) -> dict[str, tuple[str | None, int, str]]:
        """Account number, version and first name of every customer of the channel."""
        return {
            row["customer_id"]: (row["account_number"], row["version"], row["first_name"])
            for row in self.rows(channel.customers)
        }

    def counts(self) -> tuple[int, int, int]:
        """How many customers, addresses and contacts there are."""
        return (
            len(self.rows(channel.customers)),
            len(self.rows(channel.customer_addresses)),
            len(self.rows(channel.customer_contacts)),
        )

    def create(self, customer_id: str, state: CustomerState) -> CustomerEvent:
        """A clerk creates a customer: pending, with its event in the outbox."""
        created = event(customer_id, state, ("first_name", "last_name"), kind=EventKind.CREATED)
        with self.engine.begin() as connection:
            connection.execute(insert(channel.customers), customer_row(customer_id, None, 0, state))
        self.append(created)
        return created

    def edit(self, snapshot: Customer, edited: CustomerState, paths: Sequence[str], kept: bool = True) -> CustomerEvent:
        """A clerk edits a customer with that snapshot: the row shows it, the snapshot is kept, the event written."""
        appended = event(snapshot.customer_id, edited, paths)
        with self.engine.begin() as connection:
            if kept:
                value = encode(contract("Customer"), to_avro(snapshot))
                row = {"customer_id": snapshot.customer_id, "version": snapshot.version, "snapshot": value}
                connection.execute(insert(channel.snapshots), row)
            connection.execute(
                update(channel.customers)
                .where(channel.customers.c.customer_id == snapshot.customer_id)
                .values(customer_row(snapshot.customer_id, snapshot.account_number, snapshot.version, edited))
            )
        self.append(appended)
        return appended

    def append(self, appended: CustomerEvent, *, is_sent: bool = True, **columns: Any) -> None:
        """Append an event to the outbox, by default as sent."""
        row = {
            "id": appended.event_id,
            "aggregatetype": "customer",
            "aggregateid": appended.customer_id,
            "type": "CustomerEdited",
            "payload": encode(contract("CustomerEvent"), to_avro(appended)),
            "created_at": AT,
            **columns,
        }
        with self.engine.begin() as connection:
            sequence = connection.scalar(insert(channel.outbox).values(row).returning(channel.outbox.c.sequence))
            if not is_sent:
                connection.execute(insert(channel.outbox_queue).values(sequence=sequence))

    def sell(self, customer_id: str | None = None, *, is_sent: bool = True, **columns: Any) -> str:
        """Record an order, by default as sent; its id."""
        transaction_id = guid()
        row = {
            "transaction_id": transaction_id,
            "kind": "order",
            "business_date": AT.date(),
            "customer_id": customer_id,
            "currency": "USD",
            "total": "9",
            "content": {},
            "status": "pending",
            "answer": 0,
            "occurred_at": AT,
            "updated_at": AT,
        }
        with self.engine.begin() as connection:
            connection.execute(insert(channel.transactions), row)
        self._append_transaction(transaction_id, "OrderPlaced", columns, is_sent=is_sent)
        return transaction_id

    def close(self, **columns: Any) -> str:
        """Close a day, by default as sent; the id of its end-of-day record."""
        end_of_day_id = guid()
        row = {
            "end_of_day_id": end_of_day_id,
            "business_date": AT.date(),
            "transactions": 0,
            "control_totals": [],
            "status": "pending",
            "answer": 0,
            "closed_at": AT,
            "updated_at": AT,
        }
        with self.engine.begin() as connection:
            connection.execute(insert(channel.end_of_days), row)
        self._append_transaction(end_of_day_id, "DayClosed", columns, is_sent=True)
        return end_of_day_id

    def _append_transaction(self, transaction_id: str, kind: str, columns: Mapping[str, Any], *, is_sent: bool) -> None:
        row = {
            "id": transaction_id,
            "aggregatetype": "retail_transaction",
            "aggregateid": transaction_id,
            "type": kind,
            "payload": b"",
            "created_at": AT,
            **columns,
        }
        with self.engine.begin() as connection:
            sequence = connection.scalar(insert(channel.outbox).values(row).returning(channel.outbox.c.sequence))
            if not is_sent:
                connection.execute(insert(channel.outbox_queue).values(sequence=sequence))

    def sale(self, transaction_id: str) -> tuple[str, str | None, int]:
        """Status, sales order and number of the newest reply to an order, a sale or an end of day."""
        for row in [*self.rows(channel.transactions), *self.rows(channel.end_of_days)]:
            if transaction_id in (row.get("transaction_id"), row.get("end_of_day_id")):
                return row["status"], row.get("sales_order"), row["answer"]
        raise AssertionError(f"there is no {transaction_id}")

    def outbox(self) -> dict[str, dict[str, Any]]:
        """The outbox by event id."""
        return {row["id"]: row for row in self.rows(channel.outbox)}


def customer_row(customer_id: str, account_number: str | None, version: int, state: CustomerState) -> Mapping[str, Any]:
    """A row of `customers`, written out here and not by the code under test; addresses and contacts are left out."""
    return {
        "customer_id": customer_id,
        "account_number": account_number,
        "version": version,
        "updated_at": AT,
        "legal_entity": state.legal_entity,
        "customer_type": state.customer_type.lower(),
        "title": state.title,
        "first_name": state.first_name,
        "middle_name": state.middle_name,
        "last_name": state.last_name,
        "organization_name": state.organization_name,
        "language": state.language,
        "currency": state.currency,
        "customer_group": state.customer_group,
        "receipt_preference": state.receipt_preference.lower(),
        "receipt_email": state.receipt_email,
        "tax_number": state.tax_number,
        "known_as": state.known_as,
        "primary_address": state.primary_address,
        "primary_phone": state.primary_phone,
        "primary_email": state.primary_email,
        "address_books": list(state.address_books),
        "affiliations": list(state.affiliations),
        "attributes": [],
        "search_name": f"{state.first_name} {state.last_name}".lower(),
    }


def make_topics(settings: Settings) -> None:
    """Create the topics, and wait until the broker knows what its controller has created."""
    apply_topics(settings)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            topic_ids(settings, map(settings.topic, ALL))
            return
        except KafkaRefused:
            assert time.monotonic() < deadline, "the topics do not come"
            time.sleep(0.02)


@contextmanager
def set_channel_scene(
    directory: Path, bootstrap_servers: str, prefix: str, url: str, address_books: Sequence[str] = ()
) -> Iterator[ChannelScene]:
    """Topics, tables and settings of one channel, with its database at this address. `customers` is complete."""
    store = settings_file.channel(CHANNEL, url, address_books=address_books)
    parts = [general(prefix), kafka(bootstrap_servers), USRT, DEMF, store]
    document = "\n".join(parts)
    (directory / "tenten.toml").write_text(document)
    settings = Settings.model_validate(tomllib.loads(document), context={"directory": directory})
    make_topics(settings)
    # A channel that is at its end stores that at once.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "STORE_SECONDS", 0.05)
        yield from _with_database(directory, settings, bootstrap_servers)


def _with_database(directory: Path, settings: Settings, bootstrap_servers: str) -> Iterator[ChannelScene]:
    channel_tables(settings.channel(CHANNEL).database)
    engine = open_database(settings.channel(CHANNEL).database)
    try:
        headquarters = Headquarters(bootstrap_servers, settings)
        headquarters.declare_complete()
        yield ChannelScene(directory=directory, settings=settings, engine=engine, headquarters=headquarters)
    finally:
        engine.dispose()


def die_at(scene: ChannelScene, failpoint: str, program: str) -> None:
    """Run a process of the channel as a process of its own that kills itself at this point."""
    given = scene.settings.model_dump(mode="json")
    code = (
        "import json, sys, threading\n"
        "from tenten.settings import Settings\n"
        "settings = Settings.model_validate(json.loads(sys.argv[1]))\n"
        f"channel, stop = {CHANNEL!r}, threading.Event()\n"
        f"{program}"
    )
    environment = {**os.environ, "TENTEN_FAILPOINT": failpoint}
    log = scene.directory / "killed.log"
    process = fork_program(code, json.dumps(given), directory=scene.directory, log=log, environment=environment)
    with ended_with_block(process):
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL, f"did not reach {failpoint}: {log.read_text()}"

"""Headquarters writes the same whichever path a batch takes: one round trip, event by event, or columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract, contracts, encode
from tenten.consumers.headquarters.customers import classify
from tenten.consumers.headquarters.customers.classify import ClassifiedBatch, as_individual
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, Original
from tenten.consumers.headquarters.customers.numbering import Blocks
from tenten.consumers.headquarters.customers.outputs import BatchOutputs, created_outputs, replies, snapshots
from tenten.consumers.headquarters.customers.small_batch import NewCustomer, SmallBatches, new_customers
from tenten.consumers.headquarters.customers.synchronize import Headquarters as Transactions
from tenten.consumers.headquarters.customers.synchronize import synchronize
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.positions import Stream, StreamPositions
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.rules.customer import changed_paths
from tenten.runtime.errors import DatabaseOlderThanStream
from tenten.schemas.messages import CustomerEvent, CustomerState, EventKind, to_avro
from tenten.schemas.topics import EVENT_BYTES_MAX
from tenten.sql.engine import open_database
from tests.customers import valid_states
from tests.databases import create_from_template, drop_database
from tests.examples import examples

TOPIC: Final = "async-customers"
CHANNELS: Final = KnownChannels(
    legal_entity_by_channel={"houston": "usrt", "munich": "derm"}, legal_entities=frozenset({"usrt", "derm"})
)
CHANNEL_OF: Final = {"usrt": "houston", "derm": "munich"}
NOW: Final = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
HEADERS: Final = {schema.name: schema.header for schema in contracts()}
TABLES: Final = (
    "customers",
    "customer_addresses",
    "customer_contacts",
    "number_sequences",
    "synchronization_log",
    "positions",
    "release_due",
)
EMPTY: Final = f"""
    TRUNCATE {", ".join(TABLES)}, retail_transactions;
    INSERT INTO number_sequences VALUES ('usrt', 'C-####/a', 9, true), ('derm', 'D########', 1, true);
    INSERT INTO positions VALUES ('headquarters', 'topic', 0, 100), ('headquarters', 'topic', 1, 0);
"""  # noqa: S608 - constants of this module
REACHED: Final = StreamPositions(
    stream=Stream(consumer_group="headquarters", topic_id="topic"), starts={0: 100, 1: 0}, next_offsets={0: 200, 1: 300}
)


STATE: Final = CustomerState(legal_entity="usrt", first_name="Ann")


class Headquarters:
    """An empty database of headquarters, and batches that are written to it."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_database(url)
        self.connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.small_batches = SmallBatches(self.engine)
        self.empty()

    def empty(self) -> None:
        """Start again with two number sequences and two positions."""
        self.connection.execute(EMPTY)

    def tables(self) -> dict[str, list[str]]:
        """All rows, as text."""
        return {
            table: sorted(row for (row,) in self.connection.execute(f"SELECT row_to_json(t)::text FROM {table} AS t"))  # noqa: S608 - a constant
            for table in TABLES
        }

    def close(self) -> None:
        """Close all connections."""
        self.small_batches.close()
        self.connection.close()
        self.engine.dispose()


@pytest.fixture(scope="module")
def headquarters(postgresql: str) -> Iterator[Headquarters]:
    """One for all tests of the module."""
    name = f"small_batch_{uuid4().hex}"
    made = Headquarters(create_from_template(postgresql, name, "headquarters"))
    yield made
    made.close()
    drop_database(postgresql, name)


def events_of(states: Sequence[CustomerState]) -> list[CustomerEvent]:
    """The creates of these customers, each in a channel of its legal entity."""
    return [
        CustomerEvent(
            customer_id=f"0192f0c1-0000-7000-8000-{100 - number:012x}",
            event_id=f"0192f0c1-1111-7000-8000-{number:012x}",
            channel_id=CHANNEL_OF[state.legal_entity],
            kind=EventKind.CREATED,
            occurred_at=NOW,
            operator="Ann" if number % 2 else None,
            changed=changed_paths(None, state),
            customer=state,
        )
        for number, state in enumerate(states)
    ]


def delivered(events: Sequence[CustomerEvent]) -> tuple[list[bytes | None], list[bytes | None], RecordPositions]:
    """Keys, values and positions of these events."""
    return (
        [event.customer_id.encode() for event in events],
        [encode(contract("CustomerEvent"), to_avro(event)) for event in events],
        RecordPositions(
            topic=TOPIC,
            partitions=[number % 2 for number, _ in enumerate(events)],
            offsets=[100 + number for number, _ in enumerate(events)],
        ),
    )


def read_small(events: Sequence[CustomerEvent]) -> list[NewCustomer] | None:
    """The new customers of the batch; None if an event is something else."""
    keys, values, positions = delivered(events)
    decoded = classify.decode_small(keys, values, WriterSchemas())
    assert decoded is not None
    return new_customers(decoded, values, positions, WriterSchemas(), CHANNELS)


def in_one_round_trip(on: Headquarters, events: Sequence[CustomerEvent]) -> BatchOutputs:
    """Write the batch as plain values."""
    read = read_small(events)
    assert read is not None
    outputs = on.small_batches.create(read, TOPIC, REACHED, NOW, HEADERS)
    assert outputs is not None
    return outputs


def at(on: Headquarters) -> Transactions:
    """The transactions of a worker on this database."""
    held = HeldCustomers(WriterSchemas())
    return Transactions(engine=on.engine, blocks=Blocks(on.engine), channels=CHANNELS, held=held)


def never_held(row: int) -> Original:
    """No event of these tests is held."""
    raise AssertionError(f"event {row} is held")


def general(on: Headquarters, events: Sequence[CustomerEvent], batch: ClassifiedBatch) -> BatchOutputs:
    """Write a classified batch."""
    encode_created = partial(created_outputs, values=delivered(events)[1], headers=HEADERS)
    done = synchronize(at(on), batch, REACHED, now=NOW, encode=encode_created, originals=never_held)
    return BatchOutputs(snapshots(done, HEADERS), replies(done, HEADERS))


def classified(events: Sequence[CustomerEvent]) -> ClassifiedBatch:
    """The batch as classified in columns."""
    keys, values, positions = delivered(events)
    decoded = decode_batch(contract("CustomerEvent"), keys, values, WriterSchemas(), EVENT_BYTES_MAX)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(classify, "SMALL_BATCH_MAX", 0)
        return classify.classify(decoded, values, CHANNELS, positions)


def in_columns(on: Headquarters, events: Sequence[CustomerEvent]) -> BatchOutputs:
    """Write the batch in columns."""
    batch = classified(events)
    assert not batch.individual_events
    return general(on, events, batch)


def one_by_one(on: Headquarters, events: Sequence[CustomerEvent]) -> BatchOutputs:
    """Write the batch event by event."""
    return general(on, events, as_individual(classified(events)))


@given(states=st.lists(valid_states(), min_size=1, max_size=6))
@examples(20)
def test_all_paths_write_the_same_rows_snapshots_and_replies(
    headquarters: Headquarters, states: list[CustomerState]
) -> None:
    """New customers get equal rows, and equal bytes on the topics, whichever path their batch takes."""
    events = events_of(states)
    results = []
    for write in (in_one_round_trip, in_columns, one_by_one):
        headquarters.empty()
        outputs = write(headquarters, events)
        # Snapshots of different customers may be sent in any order.
        results.append((headquarters.tables(), sorted(outputs.snapshots), sorted(outputs.replies)))

    assert results[0] == results[1]
    assert results[0] == results[2]


def test_numbers_follow_the_order_of_the_batch_within_each_legal_entity(headquarters: Headquarters) -> None:
    """Each sequence continues where it was, in its own format."""
    headquarters.empty()
    german = replace(STATE, legal_entity="derm")

    in_one_round_trip(headquarters, events_of([STATE, german, STATE, german, german]))

    numbers = headquarters.connection.execute(
        "SELECT account_number FROM customers ORDER BY customer_id DESC"
    ).fetchall()
    assert [number for (number,) in numbers] == ["C-0009/a", "D00000001", "C-0010/a", "D00000002", "D00000003"]


def create_small(on: Headquarters, events: Sequence[CustomerEvent], reached: StreamPositions) -> BatchOutputs | None:
    """Try to write these new customers in one round trip."""
    read = read_small(events)
    assert read is not None
    return on.small_batches.create(read, TOPIC, reached, NOW, HEADERS)


def write_small(on: Headquarters, events: Sequence[CustomerEvent], reached: StreamPositions) -> object:
    """Write the batch as plain values."""
    return create_small(on, events, reached)


def write_general(on: Headquarters, events: Sequence[CustomerEvent], reached: StreamPositions) -> object:
    """Write the batch in columns."""
    batch = classified(events)
    encode_created = partial(created_outputs, values=delivered(events)[1], headers=HEADERS)
    return synchronize(at(on), batch, reached, now=NOW, encode=encode_created, originals=never_held)


@pytest.mark.parametrize("write", [write_small, write_general], ids=["one round trip", "columns"])
def test_database_behind_the_start_of_the_batch_is_refused(
    headquarters: Headquarters,
    write: Callable[[Headquarters, Sequence[CustomerEvent], StreamPositions], object],
) -> None:
    """A database that was put back to an older copy under the worker stores nothing of the next batch."""
    # given
    headquarters.empty()
    before = headquarters.tables()
    ahead = StreamPositions(stream=REACHED.stream, starts={0: 101, 1: 0}, next_offsets={0: 200, 1: 300})

    # when
    with pytest.raises(DatabaseOlderThanStream, match="while this worker was running"):
        write(headquarters, events_of([STATE]), ahead)

    # then
    assert headquarters.tables() == before


@pytest.mark.parametrize(
    "obstacle",
    [
        "UPDATE number_sequences SET next = 9998 WHERE legal_entity = 'usrt'",
        "DELETE FROM number_sequences",
        """
        INSERT INTO synchronization_log (event_id, customer_id, channel_id, kind, outcome, reasons, topic, partition,
            "offset", occurred_at, received_at)
        SELECT id, id, 'houston', 'created', 'synchronized', '[]', 'x', 0, 0, now(), now()
        FROM CAST('0192f0c1-1111-7000-8000-000000000001' AS uuid) AS id
        """,
        "ALTER TABLE customers ADD CONSTRAINT no_ann CHECK (first_name <> 'Ann') NOT VALID",
    ],
    ids=["numbers exhausted", "no sequence", "event is known", "check"],
)
def test_batch_that_is_not_accepted_as_it_is_stores_nothing(headquarters: Headquarters, obstacle: str) -> None:
    """The general path gets the batch, and finds the database as it was."""
    # given
    headquarters.empty()
    headquarters.connection.execute(obstacle)
    before = headquarters.tables()

    # when
    try:
        outputs = create_small(headquarters, events_of([STATE, STATE, STATE]), REACHED)
    finally:
        headquarters.connection.execute("ALTER TABLE customers DROP CONSTRAINT IF EXISTS no_ann")

    # then
    assert outputs is None
    assert headquarters.tables() == before


def test_transactions_that_wait_for_a_new_customer_are_queued_for_release(headquarters: Headquarters) -> None:
    """The function enqueues them, in the SQL transaction that creates the customer."""
    # given
    headquarters.empty()
    (event,) = events_of([STATE])
    headquarters.connection.execute(
        """
        INSERT INTO retail_transactions (transaction_id, channel_id, kind, business_date, legal_entity, customer_id,
            status, reasons, currency, total, content, answer, topic, partition, "offset", occurred_at, received_at,
            changed_at)
        SELECT gen_random_uuid(), 'houston', 'order', '2026-03-01', 'usrt', customer_id, status, '[]', 'USD', 1, '{}',
            0, 'x', 0, 0, now(), now(), now()
        FROM (VALUES (CAST(%s AS uuid), 'waiting'), (gen_random_uuid(), 'waiting')) AS sale (customer_id, status)
        """,
        (event.customer_id,),
    )

    # when
    create_small(headquarters, [event], REACHED)

    # then
    assert len(headquarters.tables()["release_due"]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": EventKind.EDITED},
        {"based_on_version": 1},
        {"customer": None},
        {"channel_id": "munich"},
        {"channel_id": "atlantis"},
        {"channel_id": "headquarters"},
        {"operator": "x" * 65},
        {"changed": ("shoe_size",)},
        {"customer": CustomerState(legal_entity="usrt")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_other_event_sends_the_batch_to_the_general_path(changes: dict[str, Any]) -> None:
    """One event that is not a simple create is enough."""
    first, second = events_of([STATE, STATE])
    assert read_small([first, replace(second, **changes)]) is None


def test_two_events_of_one_customer_go_to_the_general_path() -> None:
    """So do two events with the same id."""
    first, second = events_of([STATE, STATE])

    for twin in (replace(second, customer_id=first.customer_id), replace(second, event_id=first.event_id)):
        assert read_small([first, twin]) is None

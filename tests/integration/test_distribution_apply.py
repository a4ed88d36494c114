"""Any history of snapshots and tombstones, in batches and slices of any size, gives the result of a plain fold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select, text

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.channel import snapshots
from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.apply import apply
from tenten.consumers.channel.filter import ChannelFilter
from tenten.kafka.assigned_reader import Records
from tenten.schemas.messages import Contact, Customer, CustomerState, to_avro
from tenten.schemas.tables import channel
from tenten.sql.customer_rows import CHANNEL_TABLES, read_customers
from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel
from tests.channel_scene import AT, guid
from tests.customers import valid_states

IDS: Final = tuple(guid() for _ in range(4))
VIEW: Final = ChannelView(
    channel_id="houston", filter=ChannelFilter(legal_entity="usrt", address_books=("US",)), writers=WriterSchemas()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the history: a snapshot, or a tombstone where there is none."""

    customer_id: str
    snapshot: Customer | None


@st.composite
def histories(draw: st.DrawFn) -> list[list[Record]]:
    """Some batches of records about four customers: each changes, is repeated, or is erased."""
    last: dict[str, Customer] = {}
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        batch = []
        for _ in range(draw(st.integers(1, 6))):
            customer_id = draw(st.sampled_from(IDS))
            kind = draw(st.sampled_from(("change", "change", "change", "change", "repeat", "erase")))
            before = last.get(customer_id)
            if kind == "change" or before is None:
                legal_entity = draw(st.sampled_from(("usrt", "usrt", "usrt", "demf")))
                before = Customer(
                    customer_id=customer_id,
                    account_number="C-1",
                    version=(before.version if before else 0) + draw(st.integers(1, 3)),
                    updated_at=AT,
                    customer=replace(draw(valid_states()), legal_entity=legal_entity),
                )
                last[customer_id] = before
            batch.append(Record(customer_id=customer_id, snapshot=None if kind == "erase" else before))
        batches.append(batch)
    return batches


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A channel's database, of each kind."""
    make: Callable[[], str] = request.getfixturevalue("new_database")
    url = make() if request.param == "postgresql" else f"sqlite:///{tmp_path / 'houston.db'}"
    opened = open_database(url)
    upgrade_channel(opened)
    yield opened
    opened.dispose()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=histories(), slices=st.integers(1, 7), few=st.sampled_from((0, 4)))
def test_any_history_gives_the_result_of_a_plain_fold(
    engine: Engine, history: list[list[Record]], slices: int, few: int
) -> None:
    """Batches in columns or one by one, in slices of any size, give what one record after the other gives."""
    # given
    with engine.begin() as connection:
        for table in (channel.customers, channel.customer_addresses, channel.customer_contacts):
            connection.execute(delete(table))
    # when
    for batch_records in history:
        batch = _batch(engine, batch_records, few)
        for first in range(0, batch.rows, slices):
            with engine.begin() as connection:
                apply(connection, VIEW, batch.changes(first, min(first + slices, batch.rows)), datetime.now(UTC))
    # then
    with engine.begin() as connection:
        stored = read_customers(connection, CHANNEL_TABLES, IDS)
        children = set(connection.scalars(select(channel.customer_addresses.c.customer_id))) | set(
            connection.scalars(select(channel.customer_contacts.c.customer_id))
        )
    expected = _fold([record for batch in history for record in batch])
    assert {
        customer.customer_id: (customer.version, customer.account_number, customer.state)
        for customer in stored.values()
    } == expected
    assert children <= set(expected)


def _batch(engine: Engine, history: Sequence[Record], few: int) -> snapshots.SnapshotBatch:
    """Decoded in columns, or record by record up to `few` records."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(snapshots, "SMALL_BATCH_MAX", few)
        return snapshots.decode_snapshots(
            _records(history), VIEW.writers, VIEW.filter, channel_database(engine).dialect
        )


def _records(history: Sequence[Record]) -> Records:
    return Records(
        keys=[record.customer_id.encode() for record in history],
        values=[
            None if record.snapshot is None else encode(contract("Customer"), to_avro(record.snapshot))
            for record in history
        ],
        partitions=[0] * len(history),
        offsets=list(range(len(history))),
    )


def _fold(history: Sequence[Record]) -> dict[str, tuple[int, str, object]]:
    """One record after the other: a tombstone deletes, a snapshot counts where it is newer and passes the filter."""
    found: dict[str, tuple[int, str, object]] = {}
    for record in history:
        if record.snapshot is None:
            found.pop(record.customer_id, None)
        elif record.snapshot.version > found.get(record.customer_id, (0,))[0]:
            state = record.snapshot.customer
            found.pop(record.customer_id, None)
            if state.legal_entity == "usrt" and (not state.address_books or "US" in state.address_books):
                found[record.customer_id] = (record.snapshot.version, record.snapshot.account_number, state)
    return found


def test_last_record_wins_over_a_higher_version(engine: Engine) -> None:
    """In a resync the last record of a key is the truth: a row with a higher version becomes equal to it."""
    # given
    settled = Record(customer_id=IDS[0], snapshot=_snapshot(version=9, name="Drifted"))
    truth = Record(customer_id=IDS[0], snapshot=_snapshot(version=2, name="True"))
    for record, last_records in ((settled, False), (truth, False)):
        _apply(engine, record, last_records)
    assert _first_name(engine) == "Drifted"
    # when
    _apply(engine, truth, last_records=True)
    # then
    assert _first_name(engine) == "True"


def _snapshot(*, version: int, name: str) -> Customer:

    contact = Contact(contact_id=IDS[3], kind="EMAIL", value="ann@example.com")
    state = CustomerState(legal_entity="usrt", first_name=name, affiliations=("gold",), contacts=(contact,))
    return Customer(customer_id=IDS[0], account_number="C-1", version=version, updated_at=AT, customer=state)


def _apply(engine: Engine, record: Record, last_records: bool) -> None:
    changes = _batch(engine, [record], few=0).changes()
    with engine.begin() as connection:
        apply(connection, VIEW, changes, datetime.now(UTC), last_records=last_records)


def _first_name(engine: Engine) -> str:
    with engine.begin() as connection:
        return str(connection.scalar(select(channel.customers.c.first_name)))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(history=histories())
def test_small_batches_write_the_same_rows_as_columns(engine: Engine, history: list[list[Record]]) -> None:
    """Every column of the three tables is the same text in the database, whichever path wrote it."""
    # when
    written = [_written(engine, history, few) for few in (0, 100)]
    # then
    assert written[0] == written[1]


def _written(engine: Engine, history: Sequence[Sequence[Record]], few: int) -> list[list[str]]:
    """The rows that this history leaves in tables that were empty, as the database shows them."""
    tables = (channel.customers, channel.customer_addresses, channel.customer_contacts)
    with engine.begin() as connection:
        for table in tables:
            connection.execute(delete(table))
    for records in history:
        changes = _batch(engine, records, few).changes()
        with engine.begin() as connection:
            apply(connection, VIEW, changes, datetime.now(UTC))
    with engine.begin() as connection:
        return [sorted(map(repr, connection.execute(text(_AS_TEXT[engine.dialect.name] % table)))) for table in tables]


_AS_TEXT: Final = {"postgresql": "SELECT t::text FROM %s AS t", "sqlite": "SELECT * FROM %s"}

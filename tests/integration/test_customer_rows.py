"""Writing customers to rows and reading them, at headquarters and in channels on PostgreSQL and SQLite."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import uuid_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import OperationalError

from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    Customer,
    CustomerState,
    CustomerType,
    ReceiptPreference,
    to_avro,
)
from tenten.schemas.tables import channel, headquarters
from tenten.sql.customer_frames import channel_frames
from tenten.sql.customer_rows import (
    CHANNEL_TABLES,
    HEADQUARTERS_TABLES,
    CustomerTables,
    StoredCustomer,
    delete_customers,
    read_customers,
    write_customers,
)
from tenten.sql.engine import open_database
from tests.conftest import NewDatabase
from tests.customers import IDS, valid_states

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database with the customer tables under test."""

    engine: Engine
    tables: CustomerTables


@pytest.fixture(params=["channel in SQLite", "channel in PostgreSQL", "headquarters in PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Empty tables of each kind."""
    if request.param == "channel in SQLite":
        url = f"sqlite:///{tmp_path / 'channel.db'}"
    else:
        new_database: NewDatabase = request.getfixturevalue("new_database")
        url = new_database()
    engine = open_database(url)
    at_headquarters = request.param.startswith("headquarters")
    (headquarters if at_headquarters else channel).metadata.create_all(engine)
    yield Database(engine=engine, tables=HEADQUARTERS_TABLES if at_headquarters else CHANNEL_TABLES)
    engine.dispose()


def new_id() -> str:
    """An unused customer id."""
    return str(uuid_utils.uuid7())


def stored(state: CustomerState, **fields: Any) -> StoredCustomer:
    """A customer with this state; pending by default."""
    return StoredCustomer(
        **{"customer_id": new_id(), "account_number": None, "version": 0, "updated_at": AT, "state": state, **fields}
    )


def full_state() -> CustomerState:
    """A customer with a value in every field, with characters that are often mishandled."""
    return CustomerState(
        legal_entity="usrt",
        customer_type=CustomerType.ORGANIZATION,
        title="Dr.",
        first_name='Zoë "Z" 😀',
        middle_name="\\u0041 \\ /",
        last_name="O'Brien; DROP",
        organization_name="Ærø & Söhne\n<AG>",
        language="da-DK",
        currency="DKK",
        customer_group="10",
        receipt_preference=ReceiptPreference.BOTH,
        receipt_email="zoe@example.com",
        tax_number="DK 12/34",
        known_as="Zø",
        primary_address=IDS[0],
        primary_phone=IDS[2],
        primary_email=IDS[3],
        address_books=("EU/north", "Ærø"),
        affiliations=('"quoted"', "staff/family"),
        addresses=(
            Address(
                address_id=IDS[0],
                purpose="BUSINESS",
                name="Zoë",
                street="Vej 1\n2. sal",
                city="København",
                county="Hovedstaden",
                state="84",
                postal_code="1050",
                country="DK",
                updated_at=AT,
            ),
            Address(address_id=IDS[1], country="DE", updated_at=datetime(1999, 12, 31, tzinfo=UTC)),
        ),
        contacts=(
            Contact(contact_id=IDS[2], kind=PHONE, value="+4533123456", marketing_consent=True, description="mobil"),
            Contact(contact_id=IDS[3], kind=EMAIL, value="zoe@example.com"),
        ),
        attributes=(
            Attribute(name="decimal", decimal=Decimal("-1234567890123456789012.000001")),
            Attribute(name="integer", integer=2**63 - 1),
            Attribute(name="no", boolean=False),
            Attribute(name="text", text="{}"),
            Attribute(name="zero", integer=0),
        ),
    )


def by_id(customers: Iterable[StoredCustomer]) -> dict[str, StoredCustomer]:
    """The customers by id."""
    return {customer.customer_id: customer for customer in customers}


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that the block sends to the database, without BEGIN."""
    sent: list[str] = []

    def listen(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    yield sent
    event.remove(engine, "before_cursor_execute", listen)


@given(st.lists(valid_states(), max_size=3), st.lists(valid_states(), max_size=3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_customers_are_read_as_written(
    database: Database, states: list[CustomerState], later: list[CustomerState]
) -> None:
    """Any valid customers, new or changed, are read from the tables exactly as they were written."""
    new = by_id(map(stored, states))
    edited = dict(new)
    for customer, state in zip(new.values(), later, strict=False):
        number = customer.customer_id
        edited[customer.customer_id] = replace(customer, state=state, version=7, account_number=number)

    with database.engine.begin() as connection:
        write_customers(connection, database.tables, list(new.values()), {})
        first = read_customers(connection, database.tables, new)
        write_customers(connection, database.tables, list(edited.values()), first)
        second = read_customers(connection, database.tables, new)

    assert first == new
    assert second == edited


def test_every_field_is_read_as_written(database: Database) -> None:
    """A customer with a value in every field is unchanged after a commit."""
    customer = stored(full_state(), account_number="C-00000001", version=2**40)

    with database.engine.begin() as connection:
        write_customers(connection, database.tables, [customer], {})
    with database.engine.connect() as connection:
        assert read_customers(connection, database.tables, [customer.customer_id]) == by_id([customer])


def test_empty_customer_is_read_as_written(database: Database) -> None:
    """Empty lists stay empty; missing primaries and account number stay missing."""
    customer = stored(CustomerState(legal_entity="usrt"))

    with database.engine.begin() as connection:
        write_customers(connection, database.tables, [customer], {})
        assert read_customers(connection, database.tables, [customer.customer_id]) == by_id([customer])


def test_unknown_customers_are_absent(database: Database) -> None:
    """Unknown ids are absent from the result; without ids no statement is sent."""
    with database.engine.begin() as connection, statements(database.engine) as sent:
        assert read_customers(connection, database.tables, [new_id()]) == {}
        assert len(sent) == 1
        assert read_customers(connection, database.tables, []) == {}
        write_customers(connection, database.tables, [], {})
        delete_customers(connection, database.tables, [])
        assert len(sent) == 1


def test_number_of_statements_does_not_grow_with_the_customers(database: Database) -> None:
    """50 customers are read with three statements, changed with five and deleted with three."""
    before = by_id(stored(full_state()) for _ in range(50))
    short = replace(full_state(), addresses=full_state().addresses[:1], contacts=full_state().contacts[:1])
    short = replace(short, addresses=(replace(short.addresses[0], city="Aarhus"),), primary_email=None)
    short = replace(short, contacts=(replace(short.contacts[0], marketing_consent=False),))
    after = [replace(customer, version=1, state=short) for customer in before.values()]
    with database.engine.begin() as connection, statements(database.engine) as sent:
        write_customers(connection, database.tables, list(before.values()), {})
        assert len(sent) == 3

        sent.clear()
        write_customers(connection, database.tables, after, before)
        assert len(sent) == 5

        sent.clear()
        found = read_customers(connection, database.tables, before, for_update=True)
        assert len(sent) == 3
        assert list(found.values()) == sorted(after, key=lambda customer: customer.customer_id)

        sent.clear()
        delete_customers(connection, database.tables, before)
        assert len(sent) == 3


def test_more_customers_than_a_statement_has_parameters(database: Database) -> None:
    """Tens of thousands of ids fit into one statement."""
    ids = [f"0192f0c1-0000-7000-8000-{number:012x}" for number in range(70_000)]
    customer = stored(full_state(), customer_id=ids[-1])
    with database.engine.begin() as connection:
        write_customers(connection, database.tables, [customer], {})

        assert read_customers(connection, database.tables, ids) == by_id([customer])

        delete_customers(connection, database.tables, ids)
        assert read_customers(connection, database.tables, ids[-1:]) == {}


def test_only_differences_are_written(database: Database) -> None:
    """A new name writes neither addresses nor contacts; an unchanged customer sends no statement."""
    customer = stored(full_state())
    renamed = replace(customer, state=replace(customer.state, last_name="Smith"))
    with database.engine.begin() as connection, statements(database.engine) as sent:
        write_customers(connection, database.tables, [customer], {})
        sent.clear()

        write_customers(connection, database.tables, [customer], by_id([customer]))
        assert sent == []

        write_customers(connection, database.tables, [renamed], by_id([customer]))
        assert [statement.split()[:3] for statement in sent] == [["INSERT", "INTO", "customers"]]


def test_deletion_includes_addresses_and_contacts(database: Database) -> None:
    """Addresses and contacts of a deleted customer are deleted, too; those of other customers stay."""
    deleted, other = stored(full_state()), stored(full_state())
    with database.engine.begin() as connection:
        write_customers(connection, database.tables, [deleted, other], {})

        delete_customers(connection, database.tables, [deleted.customer_id, new_id()])

        assert read_customers(connection, database.tables, [deleted.customer_id, other.customer_id]) == by_id([other])
        for table in (database.tables.addresses, database.tables.contacts):
            assert set(connection.execute(select(table.c.customer_id)).scalars()) == {other.customer_id}


def test_enums_are_lower_case_in_the_tables(database: Database) -> None:
    """The tables hold enums in lower case, and decimals as plain text."""
    with database.engine.begin() as connection:
        write_customers(connection, database.tables, [stored(full_state())], {})
        row = connection.execute(select(database.tables.customers)).mappings().one()
        addresses = connection.execute(select(database.tables.addresses.c.purpose)).scalars()
        contacts = connection.execute(select(database.tables.contacts.c.kind)).scalars()

        assert (row["customer_type"], row["receipt_preference"]) == ("organization", "both")
        assert set(addresses) == {"business", ""}
        assert set(contacts) == {"phone", "email"}
        assert row["attributes"][0] == {"name": "decimal", "decimal": "-1234567890123456789012.000001"}
        if "search_name" in row:
            assert row["search_name"] == 'zoe "z" 😀 \\u0041 \\ / o\'brien; drop aero & sohne\n<ag> zo'


def test_headquarters_keeps_erased_customers(new_database: NewDatabase) -> None:
    """Headquarters keeps an erased customer without its data, with the time of erasure."""
    engine = open_database(new_database())
    headquarters.metadata.create_all(engine)
    customer = stored(CustomerState(legal_entity="usrt"), account_number="C-1", version=4, erased_at=AT)

    with engine.begin() as connection:
        write_customers(connection, HEADQUARTERS_TABLES, [customer], {})
        found = read_customers(connection, HEADQUARTERS_TABLES, [customer.customer_id])

    assert found == by_id([customer])
    assert found[customer.customer_id].erased
    engine.dispose()


def test_rows_read_for_update_are_locked(new_database: NewDatabase) -> None:
    """Another transaction cannot lock a customer that was read for update until the first one ends."""
    engine = open_database(new_database())
    headquarters.metadata.create_all(engine)
    customer = stored(full_state())
    with engine.begin() as connection:
        write_customers(connection, HEADQUARTERS_TABLES, [customer], {})

    with engine.begin() as first, engine.connect() as second:
        read_customers(first, HEADQUARTERS_TABLES, [customer.customer_id], for_update=True)
        second.execute(text("SET lock_timeout = '50ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            read_customers(second, HEADQUARTERS_TABLES, [customer.customer_id], for_update=True)
    engine.dispose()


def test_rows_written_in_columns_are_read_as_customers(tmp_path: Path) -> None:
    """A customer that was written in columns is read as if it had been written as rows."""
    engine = open_database(f"sqlite:///{tmp_path / 'channel.db'}")
    channel.metadata.create_all(engine)
    snapshot = Customer(customer_id=new_id(), account_number="C-1", version=3, updated_at=AT, customer=full_state())
    schema = contract("Customer")
    batch = decode_batch(
        schema, [snapshot.customer_id.encode()], [encode(schema, to_avro(snapshot))], WriterSchemas(), 1_000_000
    )
    frames = channel_frames(batch.frame, "sqlite")

    with engine.begin() as connection:
        for table, frame in (
            ("customers", frames.customers),
            ("customer_addresses", frames.addresses),
            ("customer_contacts", frames.contacts),
        ):
            parameters = ", ".join("?" * frame.width)
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({parameters})", frame.rows())  # noqa: S608 a fixed name
        found = read_customers(connection, CHANNEL_TABLES, [snapshot.customer_id])

    assert found == {
        snapshot.customer_id: stored(full_state(), customer_id=snapshot.customer_id, account_number="C-1", version=3)
    }
    engine.dispose()

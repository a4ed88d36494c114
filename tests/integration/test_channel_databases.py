"""The conformance suite of `ChannelDatabase`: every method, through the interface, on PostgreSQL and on SQLite."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
from sqlalchemy import Engine, Table, delete, insert, select, text, update

from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.channel.databases import ChannelDatabase, channel_database
from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.snapshot_columns import decode_in_columns
from tenten.kafka.assigned_reader import Records
from tenten.runtime.errors import WriteConflict
from tenten.schemas.messages import Attribute, Customer, CustomerState, to_avro
from tenten.schemas.tables import channel
from tenten.sql.customer_frames import TableFrames
from tenten.sql.engine import consistent_view, open_database
from tests.channel_scene import AT, changed, customer, guid
from tests.databases import channel_tables

TABLES: Final = (channel.customers, channel.customer_addresses, channel.customer_contacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An empty channel and the interface to its database."""

    engine: Engine
    database: ChannelDatabase

    def insert(self, *customers: Customer) -> None:
        """Insert customers and commit."""
        with self.engine.begin() as connection:
            self.database.insert(connection, self.frames(*customers))

    def update(self, *customers: Customer) -> None:
        """Update customers and commit."""
        ids = [snapshot.customer_id for snapshot in customers]
        with self.engine.begin() as connection:
            self.database.lock_versions(connection, ids)
            self.database.update(connection, self.frames(*customers), ids)

    def different(self, *customers: Customer) -> set[str]:
        """The customers that differ."""
        with self.engine.begin() as connection:
            ids = [snapshot.customer_id for snapshot in customers]
            return self.database.different(connection, self.frames(*customers), ids)

    def frames(self, *customers: Customer) -> TableFrames:
        """The table rows of these customers, as distribution decodes them."""
        records = Records(
            keys=[snapshot.customer_id.encode() for snapshot in customers],
            values=[encode(contract("Customer"), to_avro(snapshot)) for snapshot in customers],
            partitions=[0] * len(customers),
            offsets=list(range(len(customers))),
        )
        everyone = ChannelFilter(legal_entity="usrt", address_books=())
        frames = decode_in_columns(records, WriterSchemas(), everyone, self.database.dialect).changes().frames
        assert frames is not None
        return frames

    def append_event(self, customer_id: str, **columns: Any) -> None:
        """Append an event of this customer to the outbox, unsettled unless given otherwise."""
        row = {
            "id": guid(),
            "aggregatetype": "customer",
            "aggregateid": customer_id,
            "type": "CustomerEdited",
            "payload": b"",
            "created_at": AT,
            **columns,
        }
        with self.engine.begin() as connection:
            connection.execute(insert(channel.outbox), row)

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """A table's rows, ordered by primary key."""
        with consistent_view(self.engine) as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]

    def all_rows(self) -> list[list[dict[str, Any]]]:
        """The rows of the three tables."""
        return [self.rows(table) for table in TABLES]


@pytest.fixture(params=["postgresql", "sqlite"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """An empty channel on each of the two databases."""
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    url = new_database() if request.param == "postgresql" else f"sqlite:///{tmp_path / 'houston.db'}"
    channel_tables(url)
    engine = open_database(url)
    yield Scene(engine=engine, database=channel_database(engine))
    engine.dispose()


def test_dialect_is_that_of_the_database(scene: Scene) -> None:
    """The implementation is chosen by the engine, and by a connection as well."""
    assert scene.database.dialect == scene.engine.dialect.name
    with scene.engine.begin() as connection:
        assert channel_database(connection).dialect == scene.engine.dialect.name


def test_versions_of_existing_customers(scene: Scene) -> None:
    """Both ways to read versions return existing customers only, and nothing for no ids."""
    # given
    ann, bob = customer("Ann", version=3), customer("Bob", version=1)
    scene.insert(ann, bob)
    asked = [bob.customer_id, guid(), ann.customer_id]
    # when
    with scene.engine.begin() as connection:
        locked = scene.database.lock_versions(connection, asked)
        locked_of_none = scene.database.lock_versions(connection, [])
    with consistent_view(scene.engine) as connection:
        read = scene.database.versions(connection, asked)
        read_of_none = scene.database.versions(connection, [])
    # then
    assert locked == read == {ann.customer_id: 3, bob.customer_id: 1}
    assert locked_of_none == read_of_none == {}


def test_locked_customers_are_waited_for(scene: Scene) -> None:
    """A second transaction gets the lock only after the first has committed, and then sees its version."""
    # given
    ann = customer("Ann", version=1)
    scene.insert(ann)
    starting, versions = Event(), list[dict[str, int]]()

    def lock_in_another_transaction() -> None:
        starting.set()
        with scene.engine.begin() as connection:
            versions.append(scene.database.lock_versions(connection, [ann.customer_id]))

    other = Thread(target=lock_in_another_transaction)
    with scene.engine.begin() as connection:
        scene.database.lock_versions(connection, [ann.customer_id])
        # when
        other.start()
        starting.wait(10)
        other.join(0.3)
        # then
        assert other.is_alive()
        connection.execute(update(channel.customers).values(version=7))
    other.join(10)
    assert versions == [{ann.customer_id: 7}]


def test_versions_are_read_while_another_transaction_holds_the_lock(scene: Scene) -> None:
    """`versions` takes no lock: it returns the committed version at once."""
    # given
    ann = customer("Ann", version=1)
    scene.insert(ann)
    with scene.engine.begin() as writing:
        scene.database.lock_versions(writing, [ann.customer_id])
        writing.execute(update(channel.customers).values(version=7))
        # when
        with consistent_view(scene.engine) as reading:
            versions = scene.database.versions(reading, [ann.customer_id])
    # then
    assert versions == {ann.customer_id: 1}


def test_edits_are_unsettled_events_and_those_settled_in_a_later_version(scene: Scene) -> None:
    """Not events settled in the snapshot's version, or without a version, nor events of anything but customers."""
    # given
    unsettled, later, same, discarded, transaction, without = (guid() for _ in range(6))
    scene.append_event(unsettled)
    scene.append_event(later, settled_at=AT, version=6)
    scene.append_event(same, settled_at=AT, version=5)
    scene.append_event(discarded, settled_at=AT, version=None)
    scene.append_event(transaction, aggregatetype="retail_transaction")
    scene.append_event(guid())
    ids = [unsettled, later, same, discarded, transaction, without]
    # when
    with scene.engine.begin() as connection:
        with_edits = scene.database.with_edits(connection, ids, [5] * len(ids))
        in_later_snapshots = scene.database.with_edits(connection, ids, [6] * len(ids))
        of_none = scene.database.with_edits(connection, [], [])
    # then
    assert with_edits == {unsettled, later}
    assert in_later_snapshots == {unsettled}
    assert of_none == set()


def test_each_version_belongs_to_its_customer(scene: Scene) -> None:
    """Ids and versions are pairs: the same event is an edit for an older snapshot and none for a newer one."""
    # given
    older, newer = guid(), guid()
    for customer_id in (older, newer):
        scene.append_event(customer_id, settled_at=AT, version=5)
    # when
    with scene.engine.begin() as connection:
        with_edits = scene.database.with_edits(connection, [newer, older], [9, 4])
    # then
    assert with_edits == {older}


def test_insert_writes_all_three_tables(scene: Scene) -> None:
    """The columns as stored: enums in lower case, lists and attributes as JSON, times with microseconds."""
    # given
    ann = customer("Ann", version=2, attributes=(Attribute(name="shoe_size", integer=42),))
    address, contact = ann.customer.addresses[0], ann.customer.contacts[0]
    # when
    scene.insert(ann)
    # then
    (row,) = scene.rows(channel.customers)
    assert (row["customer_id"], row["account_number"], row["version"]) == (ann.customer_id, ann.account_number, 2)
    assert (row["customer_type"], row["search_name"], row["updated_at"]) == ("person", "ann muller", AT)
    assert (row["affiliations"], row["attributes"]) == (["gold", "staff"], [{"name": "shoe_size", "integer": 42}])
    (row,) = scene.rows(channel.customer_addresses)
    assert (row["customer_id"], row["address_id"], row["purpose"], row["updated_at"]) == (
        ann.customer_id,
        address.address_id,
        "home",
        AT,
    )
    rows = scene.rows(channel.customer_contacts)
    assert [row["contact_id"] for row in rows] == [contact.contact_id for contact in ann.customer.contacts]
    assert (rows[0]["kind"], rows[0]["value"], rows[0]["marketing_consent"]) == (
        contact.kind.lower(),
        contact.value,
        contact.marketing_consent,
    )


def test_insert_of_an_existing_customer_fails(scene: Scene) -> None:
    """The transaction cannot be committed, and nothing of it is visible."""
    # given
    ann, bob = customer("Ann"), customer("Bob")
    scene.insert(ann)
    before = scene.all_rows()
    # when
    with pytest.raises((WriteConflict, sqlite3.IntegrityError)):
        scene.insert(bob, changed(ann, first_name="Anna"))
    # then
    assert scene.all_rows() == before


def test_update_makes_rows_equal(scene: Scene) -> None:
    """Customer and children change, a child is added and one deleted; other customers stay. Idempotent."""
    # given
    ann, bob = customer("Ann"), customer("Bob")
    scene.insert(ann, bob)
    kept, _ = ann.customer.contacts
    address = replace(ann.customer.addresses[0], address_id=guid())
    after = changed(
        ann, first_name="Anna", contacts=(replace(kept, value="new"),), addresses=(*ann.customer.addresses, address)
    )
    # when
    scene.update(after)
    once = scene.all_rows()
    scene.update(after)
    # then
    assert scene.all_rows() == once
    assert scene.different(after, bob) == set()
    customers, addresses, contacts = once
    assert {(row["customer_id"], row["first_name"], row["version"]) for row in customers} == {
        (ann.customer_id, "Anna", 2),
        (bob.customer_id, "Bob", 1),
    }
    assert {row["address_id"] for row in addresses if row["customer_id"] == ann.customer_id} == {
        ann.customer.addresses[0].address_id,
        address.address_id,
    }
    assert [row["value"] for row in contacts if row["customer_id"] == ann.customer_id] == ["new"]
    assert len([row for row in contacts if row["customer_id"] == bob.customer_id]) == 2


def test_update_writes_no_child_that_is_equal(scene: Scene) -> None:
    """Only the contact that differs is written: a trigger records every write."""
    # given
    ann = customer("Ann")
    scene.insert(ann)
    first, second = ann.customer.contacts
    _record_writes_of_contacts(scene.engine)
    # when
    scene.update(changed(ann, contacts=(first, replace(second, value="new"))))
    # then
    with scene.engine.begin() as connection:
        written = connection.execute(text("SELECT contact_id FROM written")).scalars().all()
    assert list(map(str, written)) == [second.contact_id]


def _record_writes_of_contacts(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE written (contact_id text)"))
        if engine.dialect.name == "postgresql":
            connection.execute(
                text(
                    "CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN INSERT INTO written VALUES (NEW.contact_id::text); RETURN NEW; END $$"
                )
            )
            connection.execute(
                text(
                    "CREATE TRIGGER record AFTER INSERT OR UPDATE ON customer_contacts "
                    "FOR EACH ROW EXECUTE FUNCTION record()"
                )
            )
            return
        for change in ("INSERT", "UPDATE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER record_{change} AFTER {change} ON customer_contacts "  # noqa: S608 - our own names
                "BEGIN INSERT INTO written VALUES (NEW.contact_id); END"
            )


def test_comparison_finds_any_difference(scene: Scene) -> None:
    """Equal customers are not different; missing ones, another column, another child and a surplus child are."""
    # given
    ann, bob = _with_one_contact("Ann"), _with_one_contact("Bob")
    assert scene.different(ann, bob) == {ann.customer_id, bob.customer_id}
    scene.insert(bob)
    assert scene.different(ann, bob) == {ann.customer_id}
    scene.insert(ann)
    assert scene.different(ann, bob) == set()
    assert scene.different() == set()
    for table, values in (
        (channel.customers, {"affiliations": ["silver"]}),
        (channel.customers, {"account_number": None}),
        (channel.customers, {"search_name": ""}),
        (channel.customer_contacts, {"marketing_consent": True}),
    ):
        # when
        with scene.engine.begin() as connection:
            connection.execute(update(table).where(table.c.customer_id == ann.customer_id).values(values))
        # then
        assert scene.different(ann, bob) == {ann.customer_id}
        scene.update(ann)
        assert scene.different(ann, bob) == set()
    # when
    contact = next(row for row in scene.rows(channel.customer_contacts) if row["customer_id"] == ann.customer_id)
    with scene.engine.begin() as connection:
        connection.execute(insert(channel.customer_contacts), {**contact, "contact_id": guid()})
    # then
    assert scene.different(ann, bob) == {ann.customer_id}
    # when
    with scene.engine.begin() as connection:
        connection.execute(
            delete(channel.customer_contacts).where(channel.customer_contacts.c.customer_id == ann.customer_id)
        )
    # then
    assert scene.different(ann, bob) == {ann.customer_id}


def _with_one_contact(name: str) -> Customer:
    ann = customer(name)
    contact = replace(ann.customer.contacts[0], marketing_consent=False)
    return replace(ann, customer=CustomerState(legal_entity="usrt", first_name=name, contacts=(contact,)))


def test_remembered_customers(scene: Scene) -> None:
    """Every id once, however often it is remembered."""
    # given
    first, second = sorted((guid(), guid()))
    # when
    for ids in ([second], [first, second], []):
        with scene.engine.begin() as connection:
            scene.database.remember_surplus(connection, ids)
    # then
    assert [row["customer_id"] for row in scene.rows(channel.resync_keys)] == [first, second]


def test_nothing_is_committed(scene: Scene) -> None:
    """The writes of every method are undone when the caller's transaction is rolled back."""
    # given
    ann, bob = customer("Ann"), customer("Bob")
    scene.insert(ann)
    before = scene.all_rows()
    after = changed(ann, first_name="Anna", contacts=())
    # when
    with scene.engine.connect() as connection, connection.begin() as transaction:
        scene.database.insert(connection, scene.frames(bob))
        scene.database.update(connection, scene.frames(after), [ann.customer_id])
        scene.database.remember_surplus(connection, [ann.customer_id])
        transaction.rollback()
    # then
    assert scene.all_rows() == before
    assert scene.rows(channel.resync_keys) == []


def test_batch_of_thousands(scene: Scene) -> None:
    """No limit on bound parameters applies: 3,000 customers in one call of each method."""
    # given
    customers = [customer(f"Ann {number}") for number in range(3_000)]
    ids = [snapshot.customer_id for snapshot in customers]
    # when
    scene.insert(*customers)
    scene.update(*(changed(snapshot, last_name="New", addresses=()) for snapshot in customers))
    # then
    with scene.engine.begin() as connection:
        assert scene.database.lock_versions(connection, ids) == dict.fromkeys(ids, 2)
        assert scene.database.with_edits(connection, ids, [1] * len(ids)) == set()
        scene.database.remember_surplus(connection, ids)
    assert _counts(scene, [*TABLES, channel.resync_keys]) == [3_000, 0, 6_000, 3_000]
    assert scene.different(*customers) == set(ids)


def _counts(scene: Scene, tables: Sequence[Table]) -> list[int]:
    return [len(scene.rows(table)) for table in tables]

"""Customers of a channel: create, edit, show, discard. On PostgreSQL and SQLite, without any broker."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text

from tenten.avro.wire import WriterSchemas, contract
from tenten.producers import (
    CustomerStatus,
    CustomerView,
    NewAddress,
    NewContact,
    OpenChannel,
    create_customer,
    discard_rejected,
    edit_customer,
    open_channel,
    show_customer,
)
from tenten.runtime.errors import CustomerRejected, DatabaseFull, DatabaseRefused, NoSuchCustomer
from tenten.schemas.messages import (
    Address,
    Attribute,
    Contact,
    CustomerType,
    EventKind,
    ReceiptPreference,
    SupersededEvent,
)
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.forked import run_to_failpoint
from tests.producer_scene import HOUSTON, REASON, Store, set_store

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
OTHER_GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e50"


@pytest.fixture(params=["postgresql", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A channel on each of the two databases."""
    url = (
        request.getfixturevalue("new_database")("channel") if request.param == "postgresql" else "sqlite:///houston.db"
    )
    with set_store(tmp_path, url) as made:
        yield made


def test_a_new_customer_is_pending_and_its_event_is_in_the_outbox(store: Store) -> None:
    """Creating needs no line: the clerk sees a pending customer, and the event waits with everything about him."""
    # when
    ada = create_customer(store.channel, first_name="Ada", last_name="Lovelace", email="ada@example.com")
    # then
    assert (ada.status, ada.account_number, ada.display_number) == (CustomerStatus.PENDING, None, "Pending sync")
    assert (ada.unsettled, ada.version, ada.reasons) == (1, 0, ())
    assert show_customer(store.channel, ada.customer_id) == ada
    [written] = store.events()
    assert (written.kind, written.channel_id, written.customer_id) == (EventKind.CREATED, HOUSTON, ada.customer_id)
    assert (written.based_on_version, written.supersedes, written.customer) == (0, (), ada.state)
    assert set(written.changed) == {
        "first_name",
        "last_name",
        "language",
        "currency",
        "customer_group",
        "receipt_preference",
        "primary_email",
        "address_books",
        "affiliations/friends",
        f"contacts/{ada.state.primary_email}",
    }
    assert UUID(written.event_id).version == UUID(ada.customer_id).version == 7
    [row] = store.rows(channel.outbox)
    assert (row["type"], row["aggregatetype"], row["aggregateid"]) == ("CustomerCreated", "customer", ada.customer_id)
    assert (row["id"], row["sent_at"], row["settled_at"]) == (written.event_id, None, None)


def test_what_is_not_said_comes_from_the_channel(store: Store) -> None:
    """Language, currency, group, receipts, affiliations, address books and the country are lent to a new person."""
    # when
    ada = create_customer(store.channel, first_name="Ada", address=NewAddress(city="Houston")).state
    # then
    assert (ada.legal_entity, ada.language, ada.currency) == ("usrt", "en-US", "USD")
    assert (ada.customer_group, ada.receipt_preference) == ("10", ReceiptPreference.EMAIL)
    assert (ada.affiliations, ada.address_books) == (("friends",), ("US",))
    assert [(one.purpose, one.country, one.city) for one in ada.addresses] == [("HOME", "US", "Houston")]
    assert ada.primary_address == ada.addresses[0].address_id


def test_a_customer_with_an_organization_name_alone_is_an_organization(store: Store) -> None:
    """An organization's address is for business, and a person keeps his kind when he names his employer."""
    # when
    works = create_customer(
        store.channel, organization_name="Analytical Engines", address=NewAddress(country="Germany")
    )
    ada = create_customer(store.channel, last_name="Lovelace", organization_name="Analytical Engines")
    # then
    assert works.state.customer_type is CustomerType.ORGANIZATION
    assert [(one.purpose, one.country) for one in works.state.addresses] == [("BUSINESS", "DE")]
    assert works.display_name == "Analytical Engines"
    assert ada.state.customer_type is CustomerType.PERSON


def test_phone_numbers_and_e_mail_addresses_are_normalised(store: Store) -> None:
    """However a clerk writes them, they are kept in the form that a search can find."""
    # when
    ada = create_customer(
        store.channel,
        last_name=" Lovelace ",
        phone="(713) 555-0123",
        email=" Ada@Example.COM ",
        add_contacts=[NewContact(kind="PHONE", value="+49 30 901820", marketing_consent=True, description="office")],
    )
    # then
    assert ada.state.last_name == "Lovelace"
    assert {(one.kind, one.value, one.marketing_consent) for one in ada.state.contacts} == {
        ("PHONE", "+17135550123", False),
        ("EMAIL", "Ada@example.com", False),
        ("PHONE", "+4930901820", True),
    }
    assert contact(ada, "+17135550123").contact_id == ada.state.primary_phone


def test_a_refused_customer_gives_every_reason_and_writes_nothing(store: Store) -> None:
    """All that is wrong is said at once, before anything is written."""
    # when
    with pytest.raises(CustomerRejected) as refusal:
        create_customer(store.channel, first_name="A" * 101, phone="12", email="ada", address=NewAddress(country="XX"))
    # then
    codes = {reason.code for reason in refusal.value.reasons}
    assert codes == {"too_long", "invalid_phone", "invalid_email", "unknown_country"}
    assert set(store.counts().values()) == {0}


def test_the_same_customer_id_again_makes_no_second_customer(store: Store) -> None:
    """A program that got no answer repeats the call: one customer, one event, and later edits stay."""
    # given
    create_customer(store.channel, customer_id=GUID, last_name="Lovelace")
    edited = edit_customer(store.channel, GUID, last_name="King")
    # when
    again = create_customer(store.channel, customer_id=GUID.upper(), last_name="Lovelace")
    # then
    assert again == edited
    assert store.counts()["outbox"] == 2


def test_the_same_event_id_again_writes_nothing(store: Store) -> None:
    """An event has one place in the outbox, whether it creates or edits."""
    # given
    ada = create_customer(store.channel, event_id=GUID, last_name="Lovelace")
    edit_customer(store.channel, ada.customer_id, event_id=OTHER_GUID, first_name="Ada")
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # when
    create_customer(store.channel, event_id=GUID, last_name="Lovelace")
    again = edit_customer(store.channel, ada.customer_id, event_id=OTHER_GUID, first_name="Ada")
    # then
    assert again.state.first_name == "Augusta"
    assert [one.event_id for one in store.events()][:2] == [GUID, OTHER_GUID]
    assert store.counts() == {"customers": 1, "customer_addresses": 0, "customer_contacts": 0, "outbox": 3}


def test_one_customer_created_by_many_at_once_is_one(store: Store) -> None:
    """The same call from several tills at the same moment makes one customer with one event."""
    # when
    with ThreadPoolExecutor(4) as tills:
        made = [tills.submit(create_customer, store.channel, customer_id=GUID, last_name="Lovelace") for _ in range(8)]
        views = [one.result() for one in made]
    # then
    assert {one.customer_id for one in views} == {GUID}
    assert (store.counts()["customers"], store.counts()["outbox"]) == (1, 1)


def test_an_edit_carries_its_own_paths_and_every_unsettled_event(store: Store) -> None:
    """Each edit says what it changed, and brings along what headquarters has not settled, with the paths of each."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    edit_customer(store.channel, ada.customer_id, first_name="Ada")
    # when
    seen = edit_customer(store.channel, ada.customer_id, last_name="King", phone="713 555 0123")
    # then
    created, first, second = store.events()
    assert second.kind is EventKind.EDITED
    assert second.changed == ("last_name", "primary_phone", f"contacts/{seen.state.primary_phone}")
    assert second.supersedes == (
        SupersededEvent(event_id=created.event_id, changed=created.changed),
        SupersededEvent(event_id=first.event_id, changed=("first_name",)),
    )
    assert second.customer == seen.state
    assert (seen.unsettled, seen.status) == (3, CustomerStatus.PENDING)


def test_the_first_edit_on_a_snapshot_keeps_it_as_its_base(store: Store) -> None:
    """The last snapshot is kept under the edits, and a second edit leaves it as it was."""
    # given
    ada = synchronized(store)
    # when
    edit_customer(store.channel, ada.customer_id, last_name="King")
    seen = edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # then
    assert (seen.status, seen.account_number, seen.unsettled) == (CustomerStatus.SYNCHRONIZED, "C-00000001", 2)
    [kept] = store.rows(channel.snapshots)
    snapshot = WriterSchemas().decode(kept["snapshot"], contract("Customer"))
    assert (kept["version"], snapshot["version"], snapshot["account_number"]) == (7, 7, "C-00000001")
    assert (snapshot["customer"]["first_name"], snapshot["customer"]["last_name"]) == ("Ada", "Lovelace")
    assert [one.based_on_version for one in store.events()] == [0, 7, 7]
    assert [one.event_id for one in store.events()[2].supersedes] == [store.events()[1].event_id]


def test_an_edit_that_changes_nothing_writes_nothing(store: Store) -> None:
    """Saying what is there already leaves outbox and customer alone."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace", email="ada@example.com", address=NewAddress(city="Bath"))
    # when
    seen = edit_customer(
        store.channel, ada.customer_id, last_name="Lovelace", email="ada@EXAMPLE.com", address=NewAddress(city="Bath")
    )
    # then
    assert seen == ada
    assert store.counts()["outbox"] == 1


def test_a_refused_edit_leaves_the_customer_as_it_was(store: Store) -> None:
    """A correction is judged by the same rules as a new customer."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    # when
    with pytest.raises(CustomerRejected):
        edit_customer(store.channel, ada.customer_id, last_name="", email="nowhere")
    # then
    assert show_customer(store.channel, ada.customer_id) == ada


def test_a_rejection_is_shown_and_the_next_edit_takes_the_rejected_one_along(store: Store) -> None:
    """The clerk sees why, corrects, and the correction carries the rest of what was refused."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    [created] = store.events()
    store.reject(created.event_id)
    seen = show_customer(store.channel, ada.customer_id)
    assert (seen.status, seen.reasons, seen.unsettled) == (CustomerStatus.REJECTED, (REASON,), 1)
    # when
    corrected = edit_customer(store.channel, ada.customer_id, last_name="King")
    # then
    assert (corrected.status, corrected.reasons) == (CustomerStatus.PENDING, ())
    assert store.events()[1].supersedes == (SupersededEvent(event_id=created.event_id, changed=created.changed),)


def test_after_a_rejection_the_same_can_be_sent_once_more(store: Store) -> None:
    """An edit without a change is meaningful then: headquarters may have changed its rules."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.reject(store.events()[0].event_id)
    # when
    edit_customer(store.channel, ada.customer_id)
    # then
    created, again = store.events()
    assert (again.changed, [one.event_id for one in again.supersedes]) == ((), [created.event_id])


def test_discarding_a_rejected_edit_shows_the_snapshot_again(store: Store) -> None:
    """What was refused is given up; an edit that still is on its way stays visible."""
    # given
    ada = synchronized(store)
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    edit_customer(store.channel, ada.customer_id, last_name="King", email="ada@example.com")
    store.reject(store.events()[2].event_id)
    # when
    seen = discard_rejected(store.channel, ada.customer_id)
    # then
    assert seen is not None
    assert (seen.state.first_name, seen.state.last_name, seen.state.contacts) == ("Augusta", "Lovelace", ())
    assert (seen.status, seen.unsettled) == (CustomerStatus.SYNCHRONIZED, 1)
    assert store.rows(channel.outbox)[2]["outcome"] == "discarded"
    assert len(store.rows(channel.snapshots)) == 1


def test_discarding_the_only_edit_leaves_nothing_behind(store: Store) -> None:
    """Without edits the customer is the snapshot, and no base is kept any more."""
    # given
    ada = synchronized(store)
    edit_customer(store.channel, ada.customer_id, last_name="King", address=NewAddress(city="Bath"))
    store.reject(store.events()[1].event_id)
    # when
    seen = discard_rejected(store.channel, ada.customer_id)
    # then
    assert seen is not None
    assert (seen.state, seen.unsettled, seen.version) == (ada.state, 0, 7)
    assert store.rows(channel.snapshots) == []


def test_discarding_a_customer_that_was_never_accepted_removes_it(store: Store) -> None:
    """Headquarters has never had him, so nothing remains to be shown."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace", email="ada@example.com")
    store.reject(store.events()[0].event_id)
    # when
    remains = discard_rejected(store.channel, ada.customer_id)
    # then
    assert remains is None
    with pytest.raises(NoSuchCustomer):
        show_customer(store.channel, ada.customer_id)
    assert store.counts() == {"customers": 0, "customer_addresses": 0, "customer_contacts": 0, "outbox": 1}


def test_a_rejection_that_a_later_edit_has_taken_along_cannot_be_discarded(store: Store) -> None:
    """The later edit carries the rejected one to headquarters; giving it up here would only hide it."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.reject(store.events()[0].event_id)
    edited = edit_customer(store.channel, ada.customer_id, last_name="King")
    # when
    seen = discard_rejected(store.channel, ada.customer_id)
    # then
    assert seen == edited
    assert store.rows(channel.outbox)[0]["outcome"] == "rejected"


def test_addresses_and_contacts_are_added_changed_and_removed(store: Store) -> None:
    """Each one is a path of its own, and what is primary never points at nothing."""
    # given
    ada = create_customer(
        store.channel,
        last_name="Lovelace",
        email="ada@example.com",
        add_addresses=[NewAddress(city="Houston"), NewAddress(city="Austin", purpose="delivery")],
    )
    houston, austin = by_city(ada, "Houston"), by_city(ada, "Austin")
    assert ada.state.primary_address == houston.address_id
    # when
    moved = Address(address_id=austin.address_id, city="Dallas", country="us", updated_at=austin.updated_at)
    seen = edit_customer(
        store.channel,
        ada.customer_id,
        put_addresses=[moved],
        remove_addresses=[houston.address_id],
        put_contacts=[Contact(contact_id=GUID, kind="phone", value="713 555 0123", marketing_consent=True)],
        remove_contacts=[ada.state.primary_email or ""],
    )
    # then
    assert [(one.address_id, one.city, one.country) for one in seen.state.addresses] == [
        (austin.address_id, "Dallas", "US")
    ]
    assert seen.state.addresses[0].updated_at > austin.updated_at
    assert (seen.state.primary_address, seen.state.primary_email) == (None, None)
    assert seen.state.contacts == (
        Contact(contact_id=GUID, kind="PHONE", value="+17135550123", marketing_consent=True),
    )
    assert set(store.events()[1].changed) == {
        "primary_address",
        "primary_email",
        f"addresses/{austin.address_id}",
        f"addresses/{houston.address_id}",
        f"contacts/{GUID}",
        f"contacts/{ada.state.primary_email}",
    }


def test_affiliations_and_attributes_are_added_and_removed_by_name(store: Store) -> None:
    """An attribute takes its kind from its value; None takes it away."""
    # given
    ada = create_customer(
        store.channel,
        last_name="Lovelace",
        add_affiliations=["gold"],
        attributes={"size": 38, "discount": Decimal("1.50"), "note": "likes tea", "newsletter": True},
    )
    # when
    seen = edit_customer(
        store.channel,
        ada.customer_id,
        add_affiliations=["staff"],
        remove_affiliations=["gold", "friends"],
        attributes={"note": None, "size": 39},
    )
    # then
    assert seen.state.affiliations == ("staff",)
    assert seen.state.attributes == (
        Attribute(name="discount", decimal=Decimal("1.5")),
        Attribute(name="newsletter", boolean=True),
        Attribute(name="size", integer=39),
    )
    assert set(store.events()[1].changed) == {
        "affiliations/friends",
        "affiliations/gold",
        "affiliations/staff",
        "attributes/note",
        "attributes/size",
    }


def test_two_clerks_at_one_customer_both_succeed(store: Store) -> None:
    """Whoever comes second sees the first one's change, and takes it along."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    # when
    with ThreadPoolExecutor(4) as clerks:
        for number in range(8):
            clerks.submit(edit_customer, store.channel, ada.customer_id, attributes={f"note {number}": "x"})
    # then
    seen = show_customer(store.channel, ada.customer_id)
    assert len(seen.state.attributes) == 8
    assert [len(one.supersedes) for one in store.events()] == list(range(9))


def test_an_unknown_field_is_a_mistake_of_the_program(store: Store) -> None:
    """A typing error in a field's name never passes unnoticed."""
    with pytest.raises(TypeError, match="surname"):
        create_customer(store.channel, surname="Lovelace")  # type: ignore[call-arg]  # that is the point


@pytest.mark.parametrize("customer_id", [GUID, "C-00000001", "", "'; DROP TABLE customers"])
def test_a_customer_that_is_not_there_is_named(store: Store, customer_id: str) -> None:
    """Whatever is given as an id, the answer is that there is no such customer."""
    with pytest.raises(NoSuchCustomer):
        show_customer(store.channel, customer_id)
    with pytest.raises(NoSuchCustomer):
        edit_customer(store.channel, customer_id, last_name="King")


def test_a_database_that_cannot_be_written_is_said_loudly(store: Store) -> None:
    """The clerk learns that nothing was written, without a word of the customer in the message."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    make_read_only(store.channel.engine)
    # when
    with pytest.raises(DatabaseRefused, match="nothing was written") as refusal:
        create_customer(store.channel, last_name="Babbage")
    # then
    assert "Babbage" not in str(refusal.value)
    assert show_customer(store.channel, ada.customer_id) == ada
    assert store.counts()["outbox"] == 1


def make_read_only(engine: Engine) -> None:
    """Have the database refuse writes on every new connection."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    else:
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    engine.dispose()


def test_a_full_disk_is_said_loudly_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """When there is no space for the event, there is no customer either."""
    with set_store(tmp_path, "sqlite:///houston.db") as store:
        # given
        @event.listens_for(store.channel.engine, "connect")
        def full(connection: sqlite3.Connection, _: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        store.channel.engine.dispose()
        # when
        with pytest.raises(DatabaseFull):
            create_until_full(store.channel)
        # then
        counts = store.counts()
        assert counts["customers"] == counts["customer_addresses"] == counts["outbox"]


def create_until_full(opened: OpenChannel) -> None:
    """Create customers until there is no space left, which is soon."""
    for number in range(1000):
        create_customer(opened, last_name=f"Lovelace {number}", address=NewAddress(street="x" * 200))


@pytest.mark.parametrize(("point", "customers"), [("customers.before_commit", 0), ("customers.after_commit", 1)])
def test_a_killed_till_has_written_all_or_nothing(store: Store, point: str, customers: int) -> None:
    """SIGKILL before the commit leaves nothing, after it the customer with its event."""
    # given
    code = (
        "from pathlib import Path; from tenten.settings import load_settings; from tenten import producers; "
        f"houston = producers.open_channel(load_settings(Path({str(store.toml)!r})), 'houston'); "
        "producers.create_customer(houston, last_name='Lovelace', email='ada@example.com')"
    )
    # when
    run_to_failpoint(code, point, store.toml.parent)
    # then
    assert store.counts() == {
        "customers": customers,
        "customer_addresses": 0,
        "customer_contacts": customers,
        "outbox": customers,
    }
    if store.channel.engine.dialect.name == "sqlite":
        with store.channel.engine.connect() as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"


def test_a_channel_whose_tables_are_missing_says_what_to_run(tmp_path: Path, new_database: NewDatabase) -> None:
    """Opening a database without tables gives advice, not an error of SQL."""
    with set_store(tmp_path, "sqlite:///houston.db") as store:
        empty = store.settings.model_copy(
            update={
                "channels": {HOUSTON: store.settings.channel(HOUSTON).model_copy(update={"database": new_database()})}
            }
        )
        with pytest.raises(DatabaseRefused, match="tenten database upgrade"):
            open_channel(empty, HOUSTON)


def synchronized(store: Store) -> CustomerView:
    """A customer that headquarters knows, at version 7."""
    ada = create_customer(store.channel, first_name="Ada", last_name="Lovelace")
    store.synchronize(ada.customer_id, "C-00000001", version=7)
    return show_customer(store.channel, ada.customer_id)


def contact(view: CustomerView, value: str) -> Contact:
    """The contact with this value."""
    [found] = [one for one in view.state.contacts if one.value == value]
    return found


def by_city(view: CustomerView, city: str) -> Address:
    """The address in this city."""
    [found] = [one for one in view.state.addresses if one.city == city]
    return found

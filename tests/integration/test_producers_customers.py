"""Customers of a channel: create, edit, show, discard. On PostgreSQL and SQLite, without a broker."""

import sqlite3
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


def test_new_customer_is_pending_and_its_event_is_in_the_outbox(store: Store) -> None:
    """Creating works offline: the customer is pending, and the outbox has an event with the whole customer."""
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
        "address_books/US",
        "affiliations/friends",
        f"contacts/{ada.state.primary_email}",
    }
    assert UUID(written.event_id).version == UUID(ada.customer_id).version == 7
    [row] = store.rows(channel.outbox)
    assert (row["type"], row["aggregatetype"], row["aggregateid"]) == ("CustomerCreated", "customer", ada.customer_id)
    assert (row["id"], row["settled_at"]) == (written.event_id, None)
    assert store.unsent_ids() == [written.event_id]


def test_omitted_fields_are_filled_with_the_channels_defaults(store: Store) -> None:
    """Language, currency, group, receipts, affiliations, address books and country of a new person."""
    # when
    ada = create_customer(store.channel, first_name="Ada", address=NewAddress(city="Houston")).state
    # then
    assert (ada.legal_entity, ada.language, ada.currency) == ("usrt", "en-US", "USD")
    assert (ada.customer_group, ada.receipt_preference) == ("10", ReceiptPreference.EMAIL)
    assert (ada.affiliations, ada.address_books) == (("friends",), ("US",))
    assert [(address.purpose, address.country, address.city) for address in ada.addresses] == [
        ("HOME", "US", "Houston")
    ]
    assert ada.primary_address == ada.addresses[0].address_id


def test_customer_with_only_an_organization_name_is_an_organization(store: Store) -> None:
    """An organization's address is for business; a person who names an employer is still a person."""
    # when
    works = create_customer(
        store.channel, organization_name="Analytical Engines", address=NewAddress(country="Germany")
    )
    ada = create_customer(store.channel, last_name="Lovelace", organization_name="Analytical Engines")
    # then
    assert works.state.customer_type is CustomerType.ORGANIZATION
    assert [(address.purpose, address.country) for address in works.state.addresses] == [("BUSINESS", "DE")]
    assert works.display_name == "Analytical Engines"
    assert ada.state.customer_type is CustomerType.PERSON


def test_phone_numbers_and_email_addresses_are_normalised(store: Store) -> None:
    """Values are stored in the form that a search can find, however they were entered."""
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
    assert {(contact.kind, contact.value, contact.marketing_consent) for contact in ada.state.contacts} == {
        ("PHONE", "+17135550123", False),
        ("EMAIL", "Ada@example.com", False),
        ("PHONE", "+4930901820", True),
    }
    assert contact(ada, "+17135550123").contact_id == ada.state.primary_phone


def test_invalid_customer_is_rejected_with_every_reason_and_writes_nothing(store: Store) -> None:
    """All reasons are given at once, before anything is written."""
    # when
    with pytest.raises(CustomerRejected) as rejection:
        create_customer(store.channel, first_name="A" * 101, phone="12", email="ada", address=NewAddress(country="XX"))
    # then
    codes = {reason.code for reason in rejection.value.reasons}
    assert codes == {"too_long", "invalid_phone", "invalid_email", "unknown_country"}
    assert set(store.counts().values()) == {0}


def test_reasons_name_the_callers_fields(store: Store) -> None:
    """When the till rejects a customer, and when headquarters' reasons are shown; never a GUID."""
    # when
    with pytest.raises(CustomerRejected) as rejection:
        create_customer(
            store.channel,
            first_name="A" * 101,
            email="ada",
            phone="12",
            address=NewAddress(postal_code="7" * 21),
            add_addresses=[NewAddress(city="H" * 61)],
            add_contacts=[NewContact(kind="PHONE", value="13")],
        )
    # then
    assert [(reason.field, reason.code) for reason in rejection.value.reasons] == [
        ("first_name", "too_long"),
        ("address.postal_code", "too_long"),
        ("addresses[1].city", "too_long"),
        ("email", "invalid_email"),
        ("phone", "invalid_phone"),
        ("contacts[2].value", "invalid_phone"),
    ]
    # given
    ada = create_customer(store.channel, last_name="Lovelace", email="ada@example.com", address=NewAddress(city="Bath"))
    paths = [f"contacts/{ada.state.primary_email}", f"addresses/{ada.state.primary_address}/city"]
    store.reply(
        store.events()[0].event_id,
        "rejected",
        reasons=[{"field": path, "code": "too_long", "text": "Too long."} for path in paths],
    )
    # then
    assert [reason.field for reason in show_customer(store.channel, ada.customer_id).reasons] == [
        "email",
        "address.city",
    ]


def test_create_is_idempotent_by_customer_id(store: Store) -> None:
    """A repeated call creates no second customer or event, and keeps later edits."""
    # given
    create_customer(store.channel, customer_id=GUID, last_name="Lovelace")
    edited = edit_customer(store.channel, GUID, last_name="King")
    # when
    again = create_customer(store.channel, customer_id=GUID.upper(), last_name="Lovelace")
    # then
    assert again == edited
    assert store.counts()["outbox"] == 2


def test_create_and_edit_are_idempotent_by_event_id(store: Store) -> None:
    """An event is written once, whether it creates or edits."""
    # given
    ada = create_customer(store.channel, event_id=GUID, last_name="Lovelace")
    edit_customer(store.channel, ada.customer_id, event_id=OTHER_GUID, first_name="Ada")
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # when
    create_customer(store.channel, event_id=GUID, last_name="Lovelace")
    again = edit_customer(store.channel, ada.customer_id, event_id=OTHER_GUID, first_name="Ada")
    # then
    assert again.state.first_name == "Augusta"
    assert [event.event_id for event in store.events()][:2] == [GUID, OTHER_GUID]
    assert store.counts() == {"customers": 1, "customer_addresses": 0, "customer_contacts": 0, "outbox": 3}


def test_concurrent_creates_with_one_customer_id_create_one_customer(store: Store) -> None:
    """The same call from several tills at the same moment creates one customer with one event."""
    # when
    with ThreadPoolExecutor(4) as tills:
        futures = [
            tills.submit(create_customer, store.channel, customer_id=GUID, last_name="Lovelace") for _ in range(8)
        ]
        views = [future.result() for future in futures]
    # then
    assert {view.customer_id for view in views} == {GUID}
    assert (store.counts()["customers"], store.counts()["outbox"]) == (1, 1)


def test_edit_carries_its_own_paths_and_supersedes_every_unsettled_event(store: Store) -> None:
    """Each edit has the paths it changed, and the ids and paths of all events that headquarters has not settled."""
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


def test_first_edit_stores_the_base_snapshot(store: Store) -> None:
    """The first edit stores the last snapshot, and a second edit leaves it unchanged."""
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
    assert [event.based_on_version for event in store.events()] == [0, 7, 7]
    assert [superseded.event_id for superseded in store.events()[2].supersedes] == [store.events()[1].event_id]


def test_edit_without_changes_writes_nothing(store: Store) -> None:
    """Entering the current values again leaves outbox and customer unchanged."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace", email="ada@example.com", address=NewAddress(city="Bath"))
    # when
    seen = edit_customer(
        store.channel, ada.customer_id, last_name="Lovelace", email="ada@EXAMPLE.com", address=NewAddress(city="Bath")
    )
    # then
    assert seen == ada
    assert store.counts()["outbox"] == 1


def test_rejected_edit_leaves_the_customer_unchanged(store: Store) -> None:
    """An edit is validated by the same rules as a new customer."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    # when
    with pytest.raises(CustomerRejected):
        edit_customer(store.channel, ada.customer_id, last_name="", email="nowhere")
    # then
    assert show_customer(store.channel, ada.customer_id) == ada


def test_rejection_is_shown_and_superseded_by_the_next_edit(store: Store) -> None:
    """The clerk reads the reasons, and the correction carries the other rejected changes."""
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


def test_edit_without_changes_after_a_rejection_sends_again(store: Store) -> None:
    """Headquarters may have changed its rules, so an edit without changes is useful then."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.reject(store.events()[0].event_id)
    # when
    edit_customer(store.channel, ada.customer_id)
    # then
    created, again = store.events()
    assert (again.changed, [superseded.event_id for superseded in again.supersedes]) == ((), [created.event_id])


def test_discarding_a_rejected_edit_restores_the_snapshot(store: Store) -> None:
    """The rejected edit is discarded; an edit that is still unsettled stays visible."""
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


def test_discarding_the_only_edit_deletes_the_base_snapshot(store: Store) -> None:
    """Without edits the customer equals the snapshot, and no base is stored."""
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


def test_discarding_a_never_accepted_customer_deletes_it(store: Store) -> None:
    """Headquarters never accepted the customer, so nothing remains."""
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


def test_held_customer_is_shown_with_the_reason_until_headquarters_decides(store: Store) -> None:
    """A later edit waits behind the held event; it cannot be discarded, and is shown as the clerk entered it."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    store.hold(store.rows(channel.outbox)[0]["id"])
    # when
    held = show_customer(store.channel, ada.customer_id)
    edited = edit_customer(store.channel, ada.customer_id, last_name="King")
    discarded = discard_rejected(store.channel, ada.customer_id)
    # then
    assert (held.status, [reason.code for reason in held.reasons]) == (CustomerStatus.HELD, ["unknown_channel"])
    assert (edited.status, edited.unsettled, edited.state.last_name) == (CustomerStatus.HELD, 2, "King")
    assert discarded == edited
    created, edit = store.events()
    assert [event.event_id for event in edit.supersedes] == [created.event_id]
    # when
    store.synchronize(ada.customer_id, "C-00000001", version=2)
    # then
    assert show_customer(store.channel, ada.customer_id).status is CustomerStatus.SYNCHRONIZED


def test_rejection_superseded_by_a_later_edit_cannot_be_discarded(store: Store) -> None:
    """The later edit carries the rejected changes to headquarters, so nothing is discarded."""
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
    """Each has its own path, and primary ids never refer to a removed one."""
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
    assert [(address.address_id, address.city, address.country) for address in seen.state.addresses] == [
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
    """An attribute has the type of its value; None removes it."""
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


def test_concurrent_edits_of_one_customer_all_succeed(store: Store) -> None:
    """Each edit sees the previous ones and supersedes them."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    # when
    with ThreadPoolExecutor(4) as clerks:
        for number in range(8):
            clerks.submit(edit_customer, store.channel, ada.customer_id, attributes={f"note {number}": "x"})
    # then
    seen = show_customer(store.channel, ada.customer_id)
    assert len(seen.state.attributes) == 8
    assert [len(event.supersedes) for event in store.events()] == list(range(9))


def test_unknown_field_raises_a_type_error(store: Store) -> None:
    """A misspelt field name never passes unnoticed."""
    with pytest.raises(TypeError, match="surname"):
        create_customer(store.channel, surname="Lovelace")  # type: ignore[call-arg]  # the point of this test


@pytest.mark.parametrize("customer_id", [GUID, "C-00000001", "", "'; DROP TABLE customers"])
def test_unknown_customer_id_raises_no_such_customer(store: Store, customer_id: str) -> None:
    """This holds for any text as an id."""
    with pytest.raises(NoSuchCustomer):
        show_customer(store.channel, customer_id)
    with pytest.raises(NoSuchCustomer):
        edit_customer(store.channel, customer_id, last_name="King")


def test_read_only_database_raises_without_personal_data(store: Store) -> None:
    """The message says that nothing was written, and has no data of the customer."""
    # given
    ada = create_customer(store.channel, last_name="Lovelace")
    make_read_only(store.channel.engine)
    # when
    with pytest.raises(DatabaseRefused, match="nothing was written") as rejection:
        create_customer(store.channel, last_name="Babbage")
    # then
    assert "Babbage" not in str(rejection.value)
    assert show_customer(store.channel, ada.customer_id) == ada
    assert store.counts()["outbox"] == 1


def make_read_only(engine: Engine) -> None:
    """Make the database reject writes on every new connection."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    else:
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    engine.dispose()


def test_full_disk_raises_and_writes_no_partial_customer(tmp_path: Path) -> None:
    """Without space for the event, the customer is not written either."""
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
    """Create customers until no space is left."""
    for number in range(1000):
        create_customer(opened, last_name=f"Lovelace {number}", address=NewAddress(street="x" * 200))


@pytest.mark.parametrize(("point", "customers"), [("customers.before_commit", 0), ("customers.after_commit", 1)])
def test_killed_till_has_written_all_or_nothing(store: Store, point: str, customers: int) -> None:
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


def test_opening_a_database_without_tables_names_the_command(tmp_path: Path, new_database: NewDatabase) -> None:
    """The message names the command instead of an SQL error."""
    with set_store(tmp_path, "sqlite:///houston.db") as store:
        empty = store.settings.model_copy(
            update={
                "channels": {HOUSTON: store.settings.channel(HOUSTON).model_copy(update={"database": new_database()})}
            }
        )
        with pytest.raises(DatabaseRefused, match="tenten database upgrade"):
            open_channel(empty, HOUSTON)


def synchronized(store: Store) -> CustomerView:
    """A customer that headquarters has accepted, at version 7."""
    ada = create_customer(store.channel, first_name="Ada", last_name="Lovelace")
    store.synchronize(ada.customer_id, "C-00000001", version=7)
    return show_customer(store.channel, ada.customer_id)


def contact(view: CustomerView, value: str) -> Contact:
    """The contact with this value."""
    [match] = [contact for contact in view.state.contacts if contact.value == value]
    return match


def by_city(view: CustomerView, city: str) -> Address:
    """The address in this city."""
    [match] = [address for address in view.state.addresses if address.city == city]
    return match

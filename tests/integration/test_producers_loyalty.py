"""Loyalty cards: rejected, reserved, issued once. On PostgreSQL and SQLite; end to end in the last test."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event

from tenten.producers import (
    CardStatus,
    CardView,
    CustomerStatus,
    CustomerView,
    create_customer,
    discard_rejected,
    edit_customer,
    issue_card,
    register_customer,
    search_customers,
    show_card,
    show_customer,
)
from tenten.producers.till.loyalty import issue_reserved_cards
from tenten.runtime.errors import CustomerRejected, NoSuchCustomer
from tenten.schemas.messages import Attribute
from tenten.schemas.tables import channel
from tests.conftest import NewDatabase
from tests.flow_scene import DALLAS, HOUSTON, PARTS, set_flow
from tests.producer_scene import Store
from tests.scenes import DEADLINE_SECONDS
from tests.waiting import wait_for

CARD = "LC-1001"
OTHER_CARD = "LC-1002"
GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


def pending(store: Store, last_name: str = "Lovelace") -> str:
    """The id of a customer without an account number."""
    return create_customer(store.channel, last_name=last_name).customer_id


def numbered(store: Store, last_name: str = "Lovelace", account_number: str = "C-00000001") -> str:
    """The id of a customer with an account number."""
    customer_id = pending(store, last_name)
    store.synchronize(customer_id, account_number)
    return customer_id


def card_of(view: CustomerView) -> list[Attribute]:
    """The customer's attribute with the card."""
    return [attribute for attribute in view.state.attributes if attribute.name == "loyalty_card"]


def codes(rejection: pytest.ExceptionInfo[CustomerRejected]) -> list[tuple[str, str]]:
    """The fields and codes of a rejection."""
    return [(reason.field, reason.code) for reason in rejection.value.reasons]


def written(store: Store) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that a card writes."""
    return store.rows(channel.loyalty_cards), store.rows(channel.outbox)


def test_numbered_customer_gets_the_card(store: Store) -> None:
    """Card and edit are written together; the card number is stored in capitals."""
    # given
    ada = numbered(store)
    # when
    card = issue_card(store.channel, ada, " lc-1001 ")
    # then
    assert card == CardView(card_number=CARD, customer_id=ada, status=CardStatus.ISSUED)
    assert card_of(show_customer(store.channel, ada)) == [Attribute(name="loyalty_card", text=CARD)]
    [row] = store.rows(channel.loyalty_cards)
    assert (row["card_number"], row["customer_id"], row["status"]) == (CARD, ada, "issued")
    assert row["issued_at"] is not None
    _, edited = store.events()
    assert (edited.customer_id, edited.changed) == (ada, ("attributes/loyalty_card",))


def test_card_for_a_pending_customer_is_rejected(store: Store) -> None:
    """Nothing is written, and the clerk reads the reason."""
    # given
    ada = pending(store)
    before = written(store)
    # when
    with pytest.raises(CustomerRejected) as rejection:
        issue_card(store.channel, ada, CARD)
    # then
    assert codes(rejection) == [("loyalty_card", "pending")]
    assert "no account number yet" in rejection.value.reasons[0].text
    assert written(store) == before


def test_reserved_card_is_issued_once_after_the_account_number_arrives(store: Store) -> None:
    """Nothing is written before that, and exactly one edit then."""
    # given
    ada = pending(store)
    reserved = issue_card(store.channel, ada, CARD, keep=True)
    assert (reserved.status, [reason.code for reason in reserved.reasons]) == (CardStatus.KEPT, ["pending"])
    assert card_of(show_customer(store.channel, ada)) == []
    assert issue_reserved_cards(store.channel) == 0
    # when
    store.synchronize(ada, "C-00000001")
    issued = [issue_reserved_cards(store.channel) for _ in range(3)]
    # then
    assert issued == [1, 0, 0]
    assert show_card(store.channel, CARD) == CardView(card_number=CARD, customer_id=ada, status=CardStatus.ISSUED)
    assert card_of(show_customer(store.channel, ada)) == [Attribute(name="loyalty_card", text=CARD)]
    assert len(store.events()) == 2


def test_issue_reserved_cards_accepts_callers_connection(store: Store) -> None:
    """The relay queries on its own connection; the cards are issued all the same."""
    # given
    ada = pending(store)
    issue_card(store.channel, ada, CARD, keep=True)
    # when, then
    with store.channel.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert issue_reserved_cards(store.channel, connection) == 0
        store.synchronize(ada, "C-00000001")
        assert issue_reserved_cards(store.channel, connection) == 1


def test_concurrent_processes_issue_a_reserved_card_once(store: Store) -> None:
    """The second process finds it issued."""
    # given
    cards = [f"LC-{number}" for number in range(2000, 2020)]
    for number, card in enumerate(cards):
        customer_id = pending(store, f"Lovelace {number}")
        issue_card(store.channel, customer_id, card, keep=True)
        store.synchronize(customer_id, f"C-{number:08d}")
    start = Barrier(2)

    def relay() -> int:
        start.wait()
        return issue_reserved_cards(store.channel)

    # when
    with ThreadPoolExecutor(2) as relays:
        issued = [future.result() for future in [relays.submit(relay) for _ in range(2)]]
    # then
    assert sum(issued) == len(cards)
    assert {row["status"] for row in store.rows(channel.loyalty_cards)} == {"issued"}
    assert len(store.events()) == 2 * len(cards)


def test_crash_before_the_commit_leaves_the_card_reserved(store: Store) -> None:
    """Neither card nor edit is written; the next run issues the card."""
    # given
    ada = pending(store)
    issue_card(store.channel, ada, CARD, keep=True)
    store.synchronize(ada, "C-00000001")
    before = written(store)

    def crash(_: Connection) -> None:
        raise KeyboardInterrupt

    # when
    event.listen(store.channel.engine, "commit", crash)
    with pytest.raises(KeyboardInterrupt):
        issue_reserved_cards(store.channel)
    event.remove(store.channel.engine, "commit", crash)
    # then
    assert written(store) == before
    assert [issue_reserved_cards(store.channel) for _ in range(2)] == [1, 0]
    assert len(store.events()) == 2


def test_card_of_another_customer_is_rejected(store: Store) -> None:
    """Issued or reserved, a card has one customer; every reason is given at once."""
    # given
    ada, charles = numbered(store), pending(store, "Babbage")
    issue_card(store.channel, ada, CARD)
    issue_card(store.channel, charles, OTHER_CARD, keep=True)
    before = written(store)
    # when, then
    for customer_id, card, expected in (
        (ada, OTHER_CARD, ["taken"]),
        (charles, CARD, ["taken", "pending"]),
    ):
        with pytest.raises(CustomerRejected) as rejection:
            issue_card(store.channel, customer_id, card)
        assert codes(rejection) == [("loyalty_card", code) for code in expected]
    with pytest.raises(CustomerRejected) as rejection:
        issue_card(store.channel, charles, CARD, keep=True)
    assert codes(rejection) == [("loyalty_card", "taken")]
    assert written(store) == before


def test_card_issued_in_another_channel_is_known(store: Store) -> None:
    """The customer's attribute has it, though this channel never issued it."""
    # given
    ada, charles = numbered(store), numbered(store, "Babbage", "C-00000002")
    edit_customer(store.channel, ada, attributes={"loyalty_card": CARD})
    # when, then
    assert show_card(store.channel, CARD) == CardView(card_number=CARD, customer_id=ada, status=CardStatus.ISSUED)
    with pytest.raises(CustomerRejected) as rejection:
        issue_card(store.channel, charles, CARD)
    assert codes(rejection) == [("loyalty_card", "taken")]
    # and issuing it again to its own customer writes nothing
    events = len(store.events())
    assert issue_card(store.channel, ada, CARD).status is CardStatus.ISSUED
    assert len(store.events()) == events


@pytest.mark.parametrize("keep", [False, True])
def test_issuing_the_same_card_again_is_idempotent(store: Store, keep: bool) -> None:
    """A till that repeats its call writes nothing."""
    # given
    ada, charles = numbered(store), pending(store, "Babbage")
    first = [issue_card(store.channel, ada, CARD), issue_card(store.channel, charles, OTHER_CARD, keep=True)]
    before = written(store)
    # when
    again = [issue_card(store.channel, ada, CARD, keep=keep), issue_card(store.channel, charles, OTHER_CARD, keep=keep)]
    # then
    assert again == first
    assert written(store) == before


def test_requesting_a_reserved_card_again_issues_it(store: Store) -> None:
    """Once the number has arrived, the clerk need not wait for the relay."""
    # given
    ada = pending(store)
    issue_card(store.channel, ada, CARD, keep=True)
    store.synchronize(ada, "C-00000001")
    # when
    assert issue_card(store.channel, ada, CARD).status is CardStatus.ISSUED
    # then
    assert issue_reserved_cards(store.channel) == 0
    assert len(store.events()) == 2


def test_concurrent_requests_give_a_card_to_one_customer(store: Store) -> None:
    """The others are rejected."""
    # given
    customer_ids = [numbered(store, f"Lovelace {number}", f"C-{number}") for number in range(4)]
    start = Barrier(len(customer_ids))

    def request_card(customer_id: str) -> str:
        start.wait()
        try:
            return issue_card(store.channel, customer_id, CARD).customer_id
        except CustomerRejected as rejection:
            return rejection.reasons[0].code

    # when
    with ThreadPoolExecutor(len(customer_ids)) as tills:
        answers = list(tills.map(request_card, customer_ids))
    # then
    [row] = store.rows(channel.loyalty_cards)
    assert sorted(answers) == sorted([row["customer_id"], "taken", "taken", "taken"])
    assert len(store.events()) == len(customer_ids) + 1


def test_new_card_replaces_the_old_one_in_the_attribute(store: Store) -> None:
    """The old card remains the customer's, and no other customer gets it."""
    # given
    ada = numbered(store)
    issue_card(store.channel, ada, CARD)
    # when
    issue_card(store.channel, ada, OTHER_CARD)
    # then
    assert card_of(show_customer(store.channel, ada)) == [Attribute(name="loyalty_card", text=OTHER_CARD)]
    assert [show_card(store.channel, card).customer_id for card in (CARD, OTHER_CARD)] == [ada, ada]


def test_card_of_a_deleted_customer_stays_reserved(store: Store) -> None:
    """It is never issued, does not block others, and the clerk reads the reason."""
    # given
    ada, charles = pending(store), pending(store, "Babbage")
    issue_card(store.channel, ada, CARD, keep=True)
    issue_card(store.channel, charles, OTHER_CARD, keep=True)
    store.synchronize(charles, "C-00000001")
    with store.channel.engine.begin() as connection:
        connection.execute(delete(channel.customers).where(channel.customers.c.customer_id == ada))
    # when
    assert [issue_reserved_cards(store.channel) for _ in range(2)] == [1, 0]
    # then
    card = show_card(store.channel, CARD)
    assert (card.status, [reason.code for reason in card.reasons]) == (CardStatus.KEPT, ["unknown_customer"])
    assert show_card(store.channel, OTHER_CARD).status is CardStatus.ISSUED


def test_card_of_a_rejected_customer_waits_for_a_correction(store: Store) -> None:
    """The reason says that the customer must be corrected."""
    # given
    ada = pending(store)
    issue_card(store.channel, ada, CARD, keep=True)
    # when
    store.reject(store.events()[0].event_id)
    # then
    assert issue_reserved_cards(store.channel) == 0
    assert [reason.code for reason in show_card(store.channel, CARD).reasons] == ["rejected"]


def test_card_is_not_issued_after_a_rejected_change(store: Store) -> None:
    """The edit with the card would be rejected, too; after the change is discarded, the card is issued."""
    # given
    ada = pending(store)
    issue_card(store.channel, ada, CARD, keep=True)
    store.synchronize(ada, "C-00000001")
    edit_customer(store.channel, ada, title="Countess")
    store.reject(store.events()[-1].event_id)
    before = written(store)
    # when, then
    assert issue_reserved_cards(store.channel) == 0
    assert written(store) == before
    assert [reason.code for reason in show_card(store.channel, CARD).reasons] == ["rejected"]
    discard_rejected(store.channel, ada)
    assert issue_reserved_cards(store.channel) == 1


def test_reserved_card_of_a_discarded_customer_is_free(store: Store) -> None:
    """Headquarters never accepted the customer, so no customer has the card."""
    # given
    ada, charles = pending(store), pending(store, "Babbage")
    issue_card(store.channel, ada, CARD, keep=True)
    store.reject(store.events()[0].event_id)
    # when
    assert discard_rejected(store.channel, ada) is None
    # then
    assert store.rows(channel.loyalty_cards) == []
    assert issue_card(store.channel, charles, CARD, keep=True).customer_id == charles


@pytest.mark.parametrize("card", ["", "LC1", "L" * 31, "LC 1001", "LC_1001", "ŁC-1001", "LC-1001\x00"])
def test_malformed_card_number_is_rejected(store: Store, card: str) -> None:
    """Letters, digits and hyphens, 4 to 30."""
    with pytest.raises(CustomerRejected) as rejection:
        issue_card(store.channel, numbered(store), card, keep=True)
    assert codes(rejection) == [("loyalty_card", "card_number")]
    assert store.rows(channel.loyalty_cards) == []


@pytest.mark.parametrize("customer_id", [GUID, "nobody"])
def test_unknown_customer_gets_no_card(store: Store, customer_id: str) -> None:
    """Nothing is written."""
    with pytest.raises(NoSuchCustomer):
        issue_card(store.channel, customer_id, CARD, keep=True)
    assert store.rows(channel.loyalty_cards) == []


@pytest.mark.parametrize("card", [CARD, "no card at all", "\x00"])
def test_unknown_card_raises_a_sentence(store: Store, card: str) -> None:
    """The clerk reads that no customer has the card."""
    with pytest.raises(NoSuchCustomer, match="has this card"):
        show_card(store.channel, card)


def test_customer_is_found_by_card(store: Store) -> None:
    """However the number is written; reserved, issued here, or issued in another channel."""
    # given
    ada, charles, mary = numbered(store), pending(store, "Babbage"), numbered(store, "Somerville", "C-00000002")
    issue_card(store.channel, ada, CARD)
    issue_card(store.channel, charles, OTHER_CARD, keep=True)
    edit_customer(store.channel, mary, attributes={"loyalty_card": "LC-1003", "note": "asked for LC-1004"})
    # when
    matches = {
        text: [view.customer_id for view in search_customers(store.channel, text)]
        for text in ("lc-1001", OTHER_CARD, " Lc-1003 ", "LC-1004")
    }
    # then
    assert matches == {"lc-1001": [ada], OTHER_CARD: [charles], " Lc-1003 ": [mary], "LC-1004": []}


@pytest.mark.parametrize("houston", ["postgresql", "sqlite"])
def test_reserved_card_reaches_another_channel(
    houston: str, tmp_path: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase
) -> None:
    """Requested for a pending customer, issued after the number arrives, and known in the next store."""
    # given
    flow = set_flow(tmp_path, bootstrap_servers, prefix, new_database, houston)
    with flow.opened(HOUSTON) as store, flow.opened(DALLAS) as other:
        ada = register_customer(store, last_name="Lovelace")
        assert issue_card(store, ada.customer_id, CARD, keep=True).status is CardStatus.KEPT
        # when
        with (
            flow.scene.headquarters(),
            flow.running(*PARTS, channel=HOUSTON),
            flow.running("distribution", channel=DALLAS),
        ):
            wait_for(lambda: bool(search_customers(other, CARD)), "the card in the other channel", DEADLINE_SECONDS)
            wait_for(lambda: show_customer(store, ada.customer_id).unsettled == 0, "the answers", DEADLINE_SECONDS)
        # then
        [found] = search_customers(other, CARD)
        assert (found.customer_id, found.account_number) == (ada.customer_id, "C-00000001")
        assert card_of(found) == [Attribute(name="loyalty_card", text=CARD)]
        assert show_card(other, CARD) == show_card(store, CARD)
        assert show_customer(store, ada.customer_id).status is CustomerStatus.SYNCHRONIZED

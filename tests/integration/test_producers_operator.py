"""The operator of a till's calls. On PostgreSQL and SQLite, without a broker."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tenten.producers import (
    Item,
    close_day,
    create_customer,
    edit_customer,
    import_customers,
    issue_card,
    list_days,
    open_channel,
    record_order,
    record_sale,
    register_customer,
    resend_day,
    resend_transaction,
    show_transaction,
)
from tenten.producers.till.loyalty import issue_reserved_cards
from tenten.runtime.errors import ImportRejected, InputRejected
from tenten.schemas.tables import channel
from tests.producer_scene import HOUSTON, Store

DAY = date(2026, 3, 31)
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one customer."""
    path = tmp_path / "customers.csv"
    path.write_text("CustomerKey,FirstName,LastName\n1,Grace,Hopper\n", encoding="utf-8")
    return path


def operators(store: Store) -> list[str | None]:
    """The operators of all events in the outbox, customers' first."""
    return [event.operator for event in store.events()] + [sold.operator for sold in store.transactions()]


def reject_all_transactions(store: Store) -> None:
    """Headquarters rejects every order, sale and end of day."""
    with store.channel.engine.begin() as connection:
        for table in (channel.transactions, channel.end_of_days):
            connection.execute(update(table).values(status="rejected", reasons=[]))


def test_each_call_names_its_operator(store: Store, file: Path) -> None:
    """Several clerks use one till: each event has the operator of its call."""
    # when
    ada = create_customer(store.channel, first_name="Ada", operator="Ann")
    register_customer(store.channel, first_name="Alan", operator="Bob")
    edit_customer(store.channel, ada.customer_id, title="Dr.", operator="Zoë")
    import_customers(store.channel, file, operator="Ann")
    import_customers(store.channel, file, mapping={"FirstName": "middle_name"}, operator="Bob")
    record_order(store.channel, lines=[TEA], operator="Ann")
    record_sale(store.channel, lines=[TEA], operator="Bob", business_date=DAY)
    close_day(store.channel, DAY, operator="Zoë")
    # then
    assert operators(store) == ["Ann", "Bob", "Zoë", "Ann", "Bob", "Ann", "Bob", "Zoë"]


def test_channel_has_the_operator_of_calls_without_one(store: Store) -> None:
    """The channel's operator can change; a call overrides it, also with the empty text. Default: no operator."""
    # when
    create_customer(store.channel, first_name="Ada")
    with open_channel(store.settings, HOUSTON, operator="Ann") as houston:
        create_customer(houston, first_name="Ada")
        create_customer(houston, first_name="Ada", operator="Bob")
        create_customer(houston, first_name="Ada", operator="")
        houston.operator = "Zoë"
        create_customer(houston, first_name="Ada")
    # then
    assert operators(store) == [None, "Ann", "Bob", None, "Zoë"]


def test_operator_is_trimmed_and_composed(store: Store) -> None:
    """The same name is the same text, however it was entered."""
    create_customer(store.channel, first_name="Ada", operator=" Zoe\u0308 ")
    record_sale(store.channel, lines=[TEA], operator=" ")
    assert operators(store) == ["Zoë", None]


def test_transaction_sent_again_keeps_its_operator(store: Store) -> None:
    """The person who sends it again did not sell."""
    # given
    order = record_order(store.channel, lines=[TEA], operator="Ann")
    record_sale(store.channel, lines=[TEA], operator="Bob", business_date=DAY)
    [end] = close_day(store.channel, DAY, operator="Zoë")
    reject_all_transactions(store)
    # when
    store.channel.operator = "Eve"
    sent_again = resend_transaction(store.channel, order.transaction_id)
    end_sent_again = resend_day(store.channel, end.end_of_day_id)
    # then
    assert sorted(map(str, operators(store))) == ["Ann", "Bob", "Zoë"]
    assert sent_again.transaction.operator == "Ann"
    assert show_transaction(store.channel, order.transaction_id).transaction.operator == "Ann"
    assert [day.operator for day in (end, end_sent_again, *list_days(store.channel))] == ["Zoë"] * 3


def test_card_has_the_operator_who_requested_it(store: Store) -> None:
    """Issued at once, or by the relay when the account number has arrived."""
    # given
    ada = create_customer(store.channel, first_name="Ada")
    alan = create_customer(store.channel, first_name="Alan")
    store.synchronize(ada.customer_id, "C-00000001")
    # when
    issue_card(store.channel, ada.customer_id, "LC-1001", operator="Ann")
    issue_card(store.channel, alan.customer_id, "LC-1002", keep=True, operator="Bob")
    store.synchronize(alan.customer_id, "C-00000002")
    store.channel.operator = "Eve"
    assert issue_reserved_cards(store.channel) == 1
    # then
    assert operators(store) == [None, None, "Ann", "Bob"]
    assert [card["operator"] for card in store.rows(channel.loyalty_cards)] == ["Ann", "Bob"]


CALLS: dict[str, Callable[[Store, str, str], Any]] = {
    "create": lambda store, _, operator: create_customer(store.channel, first_name="Alan", operator=operator),
    "edit": lambda store, ada, operator: edit_customer(store.channel, ada, title="Dr.", operator=operator),
    "order": lambda store, _, operator: record_order(store.channel, lines=[TEA], operator=operator),
    "sale": lambda store, _, operator: record_sale(store.channel, lines=[TEA], operator=operator),
    "end of day": lambda store, _, operator: close_day(store.channel, operator=operator),
    "card": lambda store, ada, operator: issue_card(store.channel, ada, "LC-1001", keep=True, operator=operator),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("operator", "code"), [("x" * 65, "too_long"), ("a\x00b", "nul"), ("a\udcfc", "not_unicode")])
def test_invalid_operator_is_rejected_with_the_reason(store: Store, call: str, operator: str, code: str) -> None:
    """Nothing is written."""
    # given
    ada = create_customer(store.channel, first_name="Ada")
    # when
    with pytest.raises(InputRejected) as rejection:
        CALLS[call](store, ada.customer_id, operator)
    # then
    assert [(reason.field, reason.code) for reason in rejection.value.reasons] == [("operator", code)]
    assert len(store.rows(channel.outbox)) == 1
    assert store.rows(channel.loyalty_cards) == []


def test_import_with_an_invalid_operator_is_rejected(store: Store, file: Path) -> None:
    """As a whole, before anything is written."""
    with pytest.raises(ImportRejected, match="operator: At most 64 characters"):
        import_customers(store.channel, file, operator="x" * 65)
    assert store.rows(channel.outbox) == []

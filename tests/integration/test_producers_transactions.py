"""Orders, sales and ends of day of a channel. On PostgreSQL and SQLite, without a broker."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from tenten.producers import (
    CustomerView,
    EndOfDayView,
    Item,
    NewAddress,
    close_day,
    create_customer,
    discard_rejected,
    edit_customer,
    list_days,
    list_transactions,
    open_channel,
    record_order,
    record_sale,
    resend_day,
    resend_transaction,
    show_day,
    show_transaction,
)
from tenten.producers.till import end_of_day as days
from tenten.runtime.errors import CustomerRejected, NoSuchCustomer, NoSuchTransaction, TransactionRejected
from tenten.schemas.messages import (
    CodedAmount,
    ControlTotal,
    DeliveryAddress,
    Payment,
    TransactionKind,
    TransactionLine,
    TransactionStatus,
)
from tenten.schemas.tables import channel
from tests.producer_scene import HOUSTON, Store, set_store

GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"
FIRST, SECOND = date(2026, 3, 31), date(2026, 4, 1)
TEA = Item(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"))
CUP_BACK = Item(sku="CUP", quantity=Decimal(-1), price=Decimal("12.00"))


@pytest.fixture
def ada(store: Store) -> CustomerView:
    """A pending customer with one address."""
    address = NewAddress(street="1 Main Street", city="Houston", state="TX", postal_code="77001")
    return create_customer(store.channel, first_name="Ada", last_name="Lovelace", address=address)


def event_ids(store: Store) -> list[str]:
    """The ids of the customers' events in the outbox, oldest first."""
    return [event.event_id for event in store.events()]


def payloads(store: Store) -> dict[str, bytes]:
    """The payloads of the outbox, by id."""
    return {row["id"]: row["payload"] for row in store.rows(channel.outbox)}


def reply(store: Store, transaction_id: str, status: str) -> None:
    """Write headquarters' reply as settlement does."""
    reasons = [{"field": "lines/1/sku", "code": "unknown", "text": "There is no such article."}]
    values = {"status": status, "answer": 1, "reasons": reasons if status == "rejected" else None}
    with store.channel.engine.begin() as connection:
        for key in (channel.transactions.c.transaction_id, channel.end_of_days.c.end_of_day_id):
            connection.execute(update(key.table).where(key == transaction_id).values(values))
        settled = {"settled_at": datetime.now(UTC), "outcome": "synchronized"}
        connection.execute(update(channel.outbox).where(channel.outbox.c.id == transaction_id).values(settled))


def test_order_is_pending_and_complete_in_the_outbox(store: Store, ada: CustomerView) -> None:
    """Amounts and total are computed, the address is copied, and one row waits for the relay."""
    # when
    order = record_order(
        store.channel,
        customer_id=ada.customer_id,
        deliver_to=ada.state.primary_address,
        lines=[TEA, Item(sku="TIN", quantity=Decimal("0.5"), price=Decimal("0.33"))],
        charges=[CodedAmount(code="FREIGHT", amount=Decimal(5))],
        taxes=[CodedAmount(code="TX", amount=Decimal("0.74"))],
        payments=[Payment(method="CARD", amount=Decimal("10.00"))],
        delivery_mode="courier",
        business_date=FIRST,
    )
    # then
    assert (order.status, order.sales_order, order.reasons) == (TransactionStatus.PENDING, None, ())
    assert (order.customer_number, order.customer) == ("Pending sync", ada)
    assert show_transaction(store.channel, order.transaction_id) == order
    [sent] = store.transactions()
    assert replace(sent, customer_event=None, customer_event_id=None) == order.transaction
    assert (sent.channel_id, sent.kind, sent.legal_entity) == (HOUSTON, TransactionKind.ORDER, "usrt")
    assert (sent.customer_id, sent.currency, sent.business_date) == (ada.customer_id, "USD", FIRST)
    assert sent.lines == (
        TransactionLine(sku="TEA", quantity=Decimal(2), price=Decimal("4.50"), amount=Decimal("9.00")),
        TransactionLine(sku="TIN", quantity=Decimal("0.5"), price=Decimal("0.33"), amount=Decimal("0.17")),
    )
    assert sent.total == Decimal("14.91")
    assert sent.payments == (Payment(method="CARD", amount=Decimal("10.00")),)
    assert sent.delivery_address == DeliveryAddress(
        address_id=ada.state.primary_address or "",
        street="1 Main Street",
        city="Houston",
        state="TX",
        postal_code="77001",
        country="US",
    )
    row = store.rows(channel.outbox)[-1]
    assert (row["id"], row["aggregateid"]) == (order.transaction_id, order.transaction_id)
    assert (row["aggregatetype"], row["type"]) == ("retail_transaction", "OrderPlaced")
    assert store.unsent_ids()[-1] == order.transaction_id
    assert UUID(order.transaction_id).version == 7


def test_sale_without_payments_is_paid_in_cash(store: Store) -> None:
    """Without a customer and without payments, the total is cash, and a return pays out."""
    # when
    sale = record_sale(store.channel, lines=[TEA, CUP_BACK])
    # then
    [sent] = store.transactions()
    assert (sent.kind, sent.customer_id, sent.total) == (TransactionKind.CASH_AND_CARRY, None, Decimal("-3.00"))
    assert sent.payments == (Payment(method="CASH", amount=Decimal("-3.00")),)
    assert (sale.customer, sale.customer_number, sale.end_of_day_id) == (None, None, None)
    assert store.rows(channel.outbox)[0]["type"] == "CashAndCarrySold"


def test_business_date_is_today_in_the_channels_time_zone(store: Store, tmp_path: Path) -> None:
    """Across the date line the date differs all day."""
    # given
    zone = "Pacific/Kiritimati"
    houston = store.settings.channels[HOUSTON].model_copy(update={"time_zone": zone})
    settings = store.settings.model_copy(update={"channels": {HOUSTON: houston}})
    # when
    before = datetime.now(ZoneInfo(zone)).date()
    with open_channel(settings, HOUSTON) as there:
        sale = record_sale(there, lines=[TEA])
        [end] = close_day(there)
    # then
    assert before <= sale.transaction.business_date <= end.business_date <= datetime.now(ZoneInfo(zone)).date()


def test_business_day_lasts_until_the_cut_off_hour(store: Store) -> None:
    """Where it is noon, a day that begins at 23 o'clock is still that of yesterday, and one that began at 1 is not."""
    # given
    zone = next(
        name for name in (f"Etc/GMT{offset:+d}" for offset in range(-12, 13)) if datetime.now(ZoneInfo(name)).hour == 12
    )
    dates = {}
    for hour in (1, 23):
        update = {"time_zone": zone, "cut_off_hour": hour}
        houston = store.settings.channels[HOUSTON].model_copy(update=update)
        # when
        with open_channel(store.settings.model_copy(update={"channels": {HOUSTON: houston}}), HOUSTON) as there:
            dates[hour] = record_sale(there, lines=[TEA]).transaction.business_date
    # then
    assert dates[1] - dates[23] == timedelta(days=1)


@pytest.mark.parametrize("record", [record_order, record_sale])
def test_transaction_carries_the_newest_unsettled_event(
    store: Store, ada: CustomerView, record: Callable[..., Any]
) -> None:
    """The event of the creation, then of the edit, then of the rejected edit; none for a settled customer."""
    # given
    record(store.channel, customer_id=ada.customer_id, lines=[TEA])
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    record(store.channel, customer_id=ada.customer_id, lines=[TEA])
    store.reject(event_ids(store)[1])
    record(store.channel, customer_id=ada.customer_id, lines=[TEA])
    store.synchronize(ada.customer_id, "C-00000001")
    # when
    settled = record(store.channel, customer_id=ada.customer_id, lines=[TEA])
    # then
    created, edited = event_ids(store)
    carried = [(transaction.customer_event_id, transaction.customer_event) for transaction in store.transactions()]
    bytes_of = payloads(store)
    assert carried == [
        (created, bytes_of[created]),
        (edited, bytes_of[edited]),
        (edited, bytes_of[edited]),
        (None, None),
    ]
    assert settled.customer_number == "C-00000001"


def test_transaction_carries_no_other_customers_event(store: Store, ada: CustomerView) -> None:
    """An order of a settled customer has no event, however many others are unsettled."""
    # given
    store.synchronize(ada.customer_id, "C-00000001")
    create_customer(store.channel, last_name="Babbage")
    # when
    record_order(store.channel, customer_id=ada.customer_id, lines=[TEA])
    # then
    assert [transaction.customer_event_id for transaction in store.transactions()] == [None]


def test_recording_is_idempotent_by_transaction_id(store: Store, ada: CustomerView) -> None:
    """The first call counts, whatever else later calls contain."""
    # given
    first = record_order(store.channel, customer_id=ada.customer_id, lines=[TEA], transaction_id=GUID)
    # when
    again = record_order(store.channel, lines=[TEA, TEA], transaction_id=GUID.upper())
    sold = record_sale(store.channel, lines=[TEA], transaction_id=GUID)
    # then
    assert first == again == sold
    assert len(store.rows(channel.transactions)) == len(store.transactions()) == 1


def test_concurrent_calls_with_one_id_record_one_sale(store: Store) -> None:
    """The same call from several threads at the same moment records one transaction with one outbox row."""
    # when
    with ThreadPoolExecutor(4) as tills:
        futures = [tills.submit(record_sale, store.channel, lines=[TEA], transaction_id=GUID) for _ in range(8)]
        views = [future.result() for future in futures]
    # then
    assert {view.transaction_id for view in views} == {GUID}
    assert len(store.rows(channel.transactions)) == len(store.transactions()) == 1


def nothing_written(store: Store) -> bool:
    """True without any transaction, and without one in the outbox."""
    return store.rows(channel.transactions) == [] and store.transactions() == []


ORDER_REJECTIONS: Sequence[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({"lines": []}, {("lines", "required")}),
    ({"lines": [TEA] * 1_001}, {("lines", "too_many")}),
    ({"lines": [CUP_BACK]}, {("lines[0].quantity", "out_of_range")}),
    ({"lines": [replace(TEA, quantity=Decimal(0))]}, {("lines[0].quantity", "out_of_range")}),
    ({"lines": [replace(TEA, quantity=Decimal("NaN"))]}, {("lines[0].quantity", "out_of_range")}),
    ({"lines": [replace(TEA, quantity=Decimal("1e400"))]}, {("lines[0].quantity", "out_of_range")}),
    ({"lines": [replace(TEA, quantity=Decimal("1e-7"))]}, {("lines[0].quantity", "too_precise")}),
    (
        {"lines": [replace(TEA, quantity=Decimal("1e14"), price=Decimal("1e14"))]},
        {("lines[0].amount", "out_of_range"), ("total", "out_of_range")},
    ),
    ({"lines": [replace(TEA, price=Decimal(-1))]}, {("lines[0].price", "out_of_range")}),
    (
        {"lines": [TEA, replace(TEA, sku=" ", price=Decimal("Infinity"))]},
        {("lines[1].sku", "required"), ("lines[1].price", "out_of_range")},
    ),
    ({"lines": [replace(TEA, sku="T\x00")]}, {("lines[0].sku", "nul")}),
    ({"lines": [replace(TEA, sku="T\udcff")]}, {("lines[0].sku", "not_unicode")}),
    ({"currency": "US"}, {("currency", "unknown_currency")}),
    (
        {"currency": "JPY", "charges": [CodedAmount(code="F", amount=Decimal("0.5"))]},
        {("charges[0].amount", "too_precise")},
    ),
    (
        {"charges": [CodedAmount(code="", amount=Decimal("sNaN"))]},
        {("charges[0].code", "required"), ("charges[0].amount", "out_of_range")},
    ),
    (
        {"charges": [CodedAmount(code="F", amount=Decimal("9e999999"))] * 2},
        {("charges[0].amount", "out_of_range"), ("charges[1].amount", "out_of_range"), ("total", "out_of_range")},
    ),
    ({"taxes": [CodedAmount(code="TX", amount=Decimal("0.001"))]}, {("taxes[0].amount", "too_precise")}),
    ({"payments": [Payment(method="CARD", amount=Decimal("9.01"))]}, {("payments", "does_not_add_up")}),
    ({"delivery_mode": "x" * 61}, {("delivery_mode", "too_long")}),
    ({"deliver_to": GUID}, {("deliver_to", "no_customer")}),
    ({"transaction_id": "17"}, {("transaction_id", "invalid_id")}),
]


@pytest.mark.parametrize(("changes", "reasons"), ORDER_REJECTIONS)
def test_invalid_order_is_rejected_with_every_reason(
    sqlite_store: Store, changes: dict[str, Any], reasons: set[tuple[str, str]]
) -> None:
    """And nothing is written."""
    # when
    with pytest.raises(TransactionRejected) as rejection:
        record_order(sqlite_store.channel, **{"lines": [TEA], **changes})
    # then
    assert {(reason.field, reason.code) for reason in rejection.value.reasons} == reasons
    assert nothing_written(sqlite_store)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A channel on SQLite, for tests that do not depend on the database."""
    with set_store(tmp_path, "sqlite:///houston.db") as scene:
        yield scene


def test_sale_that_is_not_paid_in_full_is_rejected(store: Store) -> None:
    """Payments must equal the total."""
    # when
    with pytest.raises(TransactionRejected) as rejection:
        record_sale(store.channel, lines=[TEA], payments=[Payment(method="CARD", amount=Decimal("8.99"))])
    # then
    assert [(reason.field, reason.code) for reason in rejection.value.reasons] == [("payments", "does_not_add_up")]
    assert nothing_written(store)


@pytest.mark.parametrize("customer_id", [GUID, "Ada", ""])
def test_transaction_of_an_unknown_customer_is_rejected(store: Store, customer_id: str) -> None:
    """A GUID that the channel does not have, and malformed ids."""
    with pytest.raises(NoSuchCustomer):
        record_order(store.channel, customer_id=customer_id, lines=[TEA])
    with pytest.raises(NoSuchCustomer):
        record_sale(store.channel, customer_id=customer_id, lines=[TEA])
    assert nothing_written(store)


def test_address_of_another_customer_is_rejected(store: Store, ada: CustomerView) -> None:
    """Together with every other reason."""
    # given
    other = create_customer(store.channel, last_name="Babbage", address=NewAddress(city="London"))
    # when
    with pytest.raises(TransactionRejected) as rejection:
        record_order(store.channel, customer_id=ada.customer_id, deliver_to=other.state.primary_address, lines=[])
    # then
    assert [(reason.field, reason.code) for reason in rejection.value.reasons] == [
        ("deliver_to", "unknown_reference"),
        ("lines", "required"),
    ]
    assert nothing_written(store)


def test_customer_too_large_for_the_record_is_rejected_at_the_till(store: Store, ada: CustomerView) -> None:
    """Not hours later by the relay."""
    # given
    notes = {f"note {number}": "x" * 1_000 for number in range(99)}
    edit_customer(store.channel, ada.customer_id, attributes=notes)
    with store.channel.engine.begin() as connection:
        huge = update(channel.outbox).values(payload=b"x" * 1_000_000)
        connection.execute(huge.where(channel.outbox.c.id == event_ids(store)[1]))
    # when
    with pytest.raises(TransactionRejected, match="too large"):
        record_order(store.channel, customer_id=ada.customer_id, lines=[TEA])
    # then
    assert store.rows(channel.transactions) == []


def test_transactions_are_listed_newest_first(store: Store) -> None:
    """By business date, then by time; of one kind, date or status; and limited."""
    # given
    sale = record_sale(store.channel, lines=[TEA], business_date=SECOND)
    orders = [record_order(store.channel, lines=[TEA], business_date=FIRST) for _ in range(3)]
    reply(store, orders[0].transaction_id, "synchronized")
    ids = [order.transaction_id for order in orders]
    # then
    assert listed(store) == [sale.transaction_id, *reversed(ids)]
    assert listed(store, TransactionKind.ORDER) == [*reversed(ids)]
    assert listed(store, business_date=SECOND) == [sale.transaction_id]
    assert listed(store, status=TransactionStatus.SYNCHRONIZED) == ids[:1]
    assert listed(store, limit=2) == [sale.transaction_id, ids[2]]


def listed(store: Store, *arguments: Any, **options: Any) -> list[str]:
    """The ids of the listed transactions."""
    return [view.transaction_id for view in list_transactions(store.channel, *arguments, **options)]


def test_unknown_transaction_raises_no_such_transaction(store: Store) -> None:
    """To show it or to send it again."""
    for call in (show_transaction, resend_transaction, resend_day):
        for transaction_id in (GUID, "17"):
            with pytest.raises(NoSuchTransaction):
                call(store.channel, transaction_id)


def test_rejected_order_is_sent_again_with_the_newest_event(store: Store, ada: CustomerView) -> None:
    """It is pending again, at the end of the outbox; its reply counter is unchanged."""
    # given
    order = record_order(store.channel, customer_id=ada.customer_id, deliver_to=ada.state.primary_address, lines=[TEA])
    reply(store, order.transaction_id, "rejected")
    assert [reason.code for reason in show_transaction(store.channel, order.transaction_id).reasons] == ["unknown"]
    edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # when
    again = resend_transaction(store.channel, order.transaction_id)
    # then
    assert (again.status, again.reasons) == (TransactionStatus.PENDING, ())
    assert again.transaction == order.transaction
    row = store.rows(channel.outbox)[-1]
    assert (row["id"], row["settled_at"], row["outcome"]) == (order.transaction_id, None, None)
    assert store.unsent_ids()[-1] == order.transaction_id
    [sent] = store.transactions()
    assert (sent.customer_event_id, sent.total) == (event_ids(store)[1], Decimal("9.00"))
    assert [row["answer"] for row in store.rows(channel.transactions)] == [1]


def test_rejected_sale_with_a_pruned_outbox_row_is_sent_again(store: Store) -> None:
    """The row is recreated from the transaction."""
    # given
    sale = record_sale(store.channel, lines=[TEA])
    reply(store, sale.transaction_id, "rejected")
    [before] = store.transactions()
    with store.channel.engine.begin() as connection:
        connection.execute(channel.outbox.delete())
    # when
    resend_transaction(store.channel, sale.transaction_id)
    # then
    assert store.transactions() == [before]


@pytest.mark.parametrize("status", ["pending", "waiting", "blocked", "synchronized"])
def test_only_rejected_transactions_are_sent_again(store: Store, status: str) -> None:
    """Others are returned unchanged."""
    # given
    sale = record_sale(store.channel, lines=[TEA])
    reply(store, sale.transaction_id, status)
    before = store.rows(channel.outbox)
    # then
    assert resend_transaction(store.channel, sale.transaction_id).status == status
    assert store.rows(channel.outbox) == before


def test_end_of_day_lists_sales_and_control_totals(store: Store) -> None:
    """Only sales of that date, no orders; one control total per currency and payment method."""
    # given
    card = [Payment(method="CARD", amount=Decimal("5.00")), Payment(method="CASH", amount=Decimal("4.00"))]
    sales = [
        record_sale(store.channel, lines=[TEA], payments=card, business_date=FIRST),
        record_sale(store.channel, lines=[CUP_BACK], business_date=FIRST),
        record_sale(store.channel, lines=[TEA], currency="EUR", business_date=FIRST),
    ]
    record_order(store.channel, lines=[TEA], business_date=FIRST)
    other = record_sale(store.channel, lines=[TEA], business_date=SECOND)
    # when
    [end] = close_day(store.channel, FIRST)
    # then
    totals = (
        ControlTotal(currency="EUR", payment_method="CASH", amount=Decimal("9.00")),
        ControlTotal(currency="USD", payment_method="CARD", amount=Decimal("5.00")),
        ControlTotal(currency="USD", payment_method="CASH", amount=Decimal("-8.00")),
    )
    assert (end.business_date, end.status, end.transactions) == (FIRST, TransactionStatus.PENDING, 3)
    assert end.control_totals == totals
    assert show_day(store.channel, FIRST) == list_days(store.channel) == [end]
    sent = store.transactions()[-1]
    assert (sent.kind, sent.transaction_id, sent.business_date) == (
        TransactionKind.END_OF_DAY,
        end.end_of_day_id,
        FIRST,
    )
    assert (sorted(sent.listed), sent.control_totals) == (sorted(sale.transaction_id for sale in sales), totals)
    assert store.rows(channel.outbox)[-1]["type"] == "DayClosed"
    assert {show_transaction(store.channel, sale.transaction_id).end_of_day_id for sale in sales} == {end.end_of_day_id}
    assert show_transaction(store.channel, other.transaction_id).end_of_day_id is None


def test_closing_a_day_twice_writes_nothing(store: Store) -> None:
    """The last end of day is returned."""
    # given
    record_sale(store.channel, lines=[TEA], business_date=FIRST)
    first = close_day(store.channel, FIRST)
    # when
    again = close_day(store.channel, FIRST)
    # then
    assert again == first
    assert len(store.transactions()) == 2


def test_late_sale_is_listed_by_another_end_of_day(store: Store) -> None:
    """Only that sale; closing again returns the last one."""
    # given
    record_sale(store.channel, lines=[TEA], business_date=FIRST)
    first = close_day(store.channel, FIRST)
    late = record_sale(store.channel, lines=[TEA], business_date=FIRST)
    # when
    second = close_day(store.channel, FIRST)
    # then
    assert store.transactions()[-1].listed == (late.transaction_id,)
    assert close_day(store.channel, FIRST) == second != first
    assert show_day(store.channel, FIRST) == [*second, *first]


def test_date_without_sales_has_one_empty_end_of_day(store: Store) -> None:
    """It tells headquarters that nothing is missing."""
    # when
    [end] = close_day(store.channel, FIRST)
    # then
    assert close_day(store.channel, FIRST) == [end]
    assert (end.transactions, end.control_totals) == (0, ())
    [sent] = store.transactions()
    assert (sent.listed, sent.control_totals) == ((), ())


def test_many_sales_are_split_into_several_ends_of_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lists at most the maximum, and has the control totals of its own list."""
    # given
    monkeypatch.setattr(days, "LISTED_MAX", 2)
    sales = [record_sale(store.channel, lines=[TEA], business_date=FIRST).transaction_id for _ in range(5)]
    # when
    ends = close_day(store.channel, FIRST)
    # then
    assert [end.transactions for end in ends] == [2, 2, 1]
    assert [end.control_totals[0].amount for end in ends] == [Decimal(18), Decimal(18), Decimal(9)]
    sent = store.transactions()[5:]
    assert sorted(transaction_id for part in sent for transaction_id in part.listed) == sorted(sales)
    assert [part.complete for part in sent] == [False, False, True]


def test_end_of_day_after_a_rejected_one_is_not_complete(store: Store) -> None:
    """The sales of the rejected one may still arrive."""
    # given
    record_sale(store.channel, lines=[TEA], business_date=FIRST)
    [first] = close_day(store.channel, FIRST)
    reply(store, first.end_of_day_id, "rejected")
    record_sale(store.channel, lines=[TEA], business_date=FIRST)
    # when
    close_day(store.channel, FIRST)
    # then
    assert [transaction.complete for transaction in store.transactions() if transaction.listed] == [True, False]


def test_rejected_end_of_day_is_sent_again_with_the_same_list(store: Store) -> None:
    """Without later sales, and marked as possibly incomplete."""
    # given
    for _ in range(3):
        record_sale(store.channel, lines=[TEA], business_date=FIRST)
    [end] = close_day(store.channel, FIRST)
    before = store.transactions()[-1]
    record_sale(store.channel, lines=[TEA], business_date=FIRST)
    assert resend_day(store.channel, end.end_of_day_id) == end
    reply(store, end.end_of_day_id, "rejected")
    # when
    again = resend_day(store.channel, end.end_of_day_id)
    # then
    assert (again.status, again.reasons) == (TransactionStatus.PENDING, ())
    assert (before.complete, store.transactions()[-1]) == (True, replace(before, complete=False))
    assert len(store.transactions()) == 5


def test_days_closed_while_tills_sell_list_every_sale_once(store: Store) -> None:
    """And in the order of the outbox, everything of the date before an end of day is listed by it or an earlier one;
    its control totals are those of what it lists.
    """

    # given
    def sell(_: int) -> str:
        return record_sale(store.channel, lines=[TEA], business_date=FIRST).transaction_id

    def close(_: int) -> list[EndOfDayView]:
        return close_day(store.channel, FIRST)

    # when
    with ThreadPoolExecutor(6) as tills, ThreadPoolExecutor(2) as offices:
        selling, closing = tills.map(sell, range(60)), offices.map(close, range(10))
        sold, _ = sorted(selling), list(closing)
    close_day(store.channel, FIRST)
    # then
    sent = store.transactions()
    ends = [transaction for transaction in sent if transaction.kind is TransactionKind.END_OF_DAY]
    assert sorted(transaction_id for end in ends for transaction_id in end.listed) == sold
    seen: set[str] = set()
    for transaction in sent:
        if transaction.kind is TransactionKind.END_OF_DAY:
            assert set(transaction.listed) == seen
            assert [total.amount for total in transaction.control_totals] == ([Decimal(9) * len(seen)] if seen else [])
            seen = set()
        else:
            seen.add(transaction.transaction_id)
    assert {row["end_of_day_id"]: row["transactions"] for row in store.rows(channel.end_of_days)} == {
        end.transaction_id: len(end.listed) for end in ends
    }


def test_rejected_customer_with_an_unfinished_order_cannot_be_discarded(store: Store, ada: CustomerView) -> None:
    """The order needs its customer; so does a rejected order that is sent again."""
    # given
    order = record_order(store.channel, customer_id=ada.customer_id, lines=[TEA])
    store.reject(event_ids(store)[0])
    # when
    with pytest.raises(CustomerRejected, match="on its way"):
        discard_rejected(store.channel, ada.customer_id)
    reply(store, order.transaction_id, "rejected")
    with pytest.raises(CustomerRejected, match="on its way"):
        discard_rejected(store.channel, ada.customer_id)
    reply(store, order.transaction_id, "synchronized")
    # then
    assert discard_rejected(store.channel, ada.customer_id) is None
    shown = show_transaction(store.channel, order.transaction_id)
    assert (shown.customer, shown.transaction.customer_id) == (None, ada.customer_id)


def test_customer_and_transaction_may_share_an_id(store: Store, ada: CustomerView) -> None:
    """Both are found by a GUID that is used for a customer and its first order."""
    # given
    order = record_order(store.channel, customer_id=ada.customer_id, lines=[TEA], transaction_id=ada.customer_id)
    # when
    edited = edit_customer(store.channel, ada.customer_id, first_name="Augusta")
    # then
    assert (edited.state.first_name, edited.unsettled) == ("Augusta", 2)
    assert show_transaction(store.channel, order.transaction_id).status is TransactionStatus.PENDING

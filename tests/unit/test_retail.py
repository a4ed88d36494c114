"""The rules for transactions: money to the minor unit, every reason, and a columnar fast path that agrees with them."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any, Final
from unittest.mock import patch

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.batches import decode_batch
from tenten.avro.wire import WriterSchemas, contract, encode
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.transactions import classify as classification
from tenten.consumers.headquarters.transactions.classify import SMALL_BATCH, classify
from tenten.rules.definitions import TransactionDefinitions
from tenten.rules.operator_rule import storable_operator
from tenten.rules.transaction_content import content_of
from tenten.rules.transaction_rules import control_totals, line_amount, minor_unit, total_of, transaction_violations
from tenten.rules.transaction_rules_columns import passes_fast_path
from tenten.schemas.messages import (
    Attribute,
    CodedAmount,
    DeliveryAddress,
    Payment,
    RetailTransaction,
    TransactionKind,
    TransactionLine,
    attribute_definition,
    to_avro,
)
from tenten.schemas.topics import RECORD_BYTES_MAX
from tests.examples import examples

CHANNELS: Final = {"houston": "usrt", "munich": "demf"}
DEFINITIONS: Final = TransactionDefinitions.of(
    [
        attribute_definition("till", {"kind": "integer", "entities": ["order", "sale"], "mandatory": True}),
        attribute_definition("gift", {"kind": "boolean", "entities": ["sale"]}),
        attribute_definition("shoe_size", {"kind": "integer", "entities": ["customer"], "mandatory": True}),
    ]
)
GUIDS: Final = tuple(f"0190b5d2-7c1e-7000-8000-{number:012d}" for number in range(4))
NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)


def line(quantity: str, price: str, currency: str = "USD") -> TransactionLine:
    """A line with the correct amount."""
    amount = line_amount(Decimal(quantity), Decimal(price), currency)
    return TransactionLine(sku="CUP", quantity=Decimal(quantity), price=Decimal(price), amount=amount)


def order(**fields: Any) -> RetailTransaction:
    """A valid order of one line, except for these fields."""
    made = RetailTransaction(
        channel_id="houston",
        transaction_id=GUIDS[0],
        kind=TransactionKind.ORDER,
        occurred_at=NOON,
        business_date=date(2026, 3, 2),
        legal_entity="usrt",
        currency="USD",
        lines=(line("2", "4.50"),),
        total=Decimal(9),
    )
    return replace(made, **fields)


def violations(transaction: RetailTransaction) -> set[tuple[str, str]]:
    """Field and code of each reason."""
    return {(reason.field, reason.code) for reason in transaction_violations(transaction, CHANNELS, {})}


def test_attributes_of_orders_and_sales_are_as_defined() -> None:
    """Each kind of transaction has its own, and what is defined for customers does not count."""
    # given
    till = Attribute(name="till", integer=3)
    gift = Attribute(name="gift", boolean=True)
    sale = order(kind=TransactionKind.CASH_AND_CARRY, payments=(Payment(method="CASH", amount=Decimal(9)),))

    def found(transaction: RetailTransaction, *attributes: Attribute) -> set[tuple[str, str]]:
        made = replace(transaction, attributes=attributes)
        violated = transaction_violations(made, CHANNELS, {"usrt": DEFINITIONS})
        return {(reason.field, reason.code) for reason in violated}

    # then
    assert found(order(), till) == found(sale, till, gift) == set()
    assert found(order()) == {("attributes/till", "required")}
    assert found(order(), till, gift) == {("attributes/gift", "unknown_attribute")}
    assert found(sale, Attribute(name="till", text="three")) == {("attributes/till", "wrong_kind")}
    assert found(order(), till, till) == {("attributes/till", "duplicate")}
    assert found(order(), Attribute(name="till")) >= {("attributes/till", "one_value")}


@pytest.mark.parametrize(
    ("quantity", "price", "currency", "amount"),
    [
        ("3", "0.335", "USD", "1.01"),
        ("1", "0.005", "USD", "0.01"),
        ("-1", "0.005", "USD", "-0.01"),
        ("2.5", "0.1", "USD", "0.25"),
        ("3", "0.5", "JPY", "2"),
        ("1", "0.0005", "BHD", "0.001"),
        ("999999999999999", "999999999999999.999999", "USD", "999999999999998999999000000000.00"),
    ],
)
def test_amounts_are_rounded_half_up_to_the_minor_unit(quantity: str, price: str, currency: str, amount: str) -> None:
    """Away from zero, in the currency's own smallest unit, and exact however large."""
    assert line_amount(Decimal(quantity), Decimal(price), currency) == Decimal(amount)


def test_minor_units_are_those_of_iso_4217() -> None:
    """Cents, yen, fils; a currency without a minor unit is counted in whole units."""
    assert [minor_unit(currency) for currency in ("USD", "JPY", "BHD", "XAU")] == [
        Decimal("0.01"),
        Decimal(1),
        Decimal("0.001"),
        Decimal(1),
    ]


def test_control_totals_add_up_by_currency_and_method() -> None:
    """One total each, sorted; returns count as negative."""
    paid = [
        ("USD", [Payment(method="CASH", amount=Decimal("1.10")), Payment(method="CARD", amount=Decimal(2))]),
        ("EUR", [Payment(method="CASH", amount=Decimal(5))]),
        ("USD", [Payment(method="CASH", amount=Decimal("-0.10"))]),
    ]
    found = [(total.currency, total.payment_method, total.amount) for total in control_totals(paid)]
    assert found == [("EUR", "CASH", Decimal(5)), ("USD", "CARD", Decimal(2)), ("USD", "CASH", Decimal("1.00"))]


def test_valid_transactions_have_no_reasons() -> None:
    """An order with a deposit, a delivery and a customer; a sale that is a return; the end of a day."""
    address = DeliveryAddress(address_id=GUIDS[2], street="Main St 1")
    delivered = order(
        customer_id=GUIDS[1], delivery_address=address, payments=(Payment(method="CARD", amount=Decimal(4)),)
    )
    returned = order(
        kind=TransactionKind.CASH_AND_CARRY,
        lines=(line("-1", "4.50"),),
        total=Decimal("-4.50"),
        payments=(Payment(method="CASH", amount=Decimal("-4.50")),),
    )
    day = order(kind=TransactionKind.END_OF_DAY, currency="", lines=(), total=Decimal(0), listed=GUIDS, operator="Ann")
    assert [violations(valid) for valid in (order(), delivered, returned, day)] == [set()] * 4


INVALID: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"channel_id": "nowhere"}, "channel_id", "unknown_channel"),
    ({"legal_entity": "demf"}, "legal_entity", "other_legal_entity"),
    ({"currency": "usd"}, "currency", "unknown_currency"),
    ({"customer_id": "x"}, "customer_id", "invalid_id"),
    ({"customer_event": b"x"}, "customer_event", "incomplete"),
    ({"customer_event": b"x", "customer_event_id": GUIDS[1]}, "customer_id", "required"),
    ({"delivery_address": DeliveryAddress(address_id=GUIDS[1])}, "delivery_address", "no_customer"),
    ({"delivery_mode": "x" * 61}, "delivery_mode", "too_long"),
    ({"operator": "x" * 65}, "operator", "too_long"),
    ({"operator": "a\x00"}, "operator", "nul"),
    ({"lines": ()}, "lines", "required"),
    ({"lines": (line("1", "1"),) * 1001}, "lines", "too_many"),
    ({"lines": (replace(line("2", "4.50"), sku=" "),)}, "lines[0].sku", "required"),
    ({"lines": (replace(line("2", "4.50"), sku="\x1f"),)}, "lines[0].sku", "required"),
    ({"lines": (replace(line("2", "4.50"), sku="a\x00"),)}, "lines[0].sku", "nul"),
    ({"lines": (line("-2", "4.50"), line("9", "4.50"))}, "lines[0].quantity", "out_of_range"),
    ({"lines": (line("0", "4.50"),)}, "lines[0].quantity", "out_of_range"),
    ({"lines": (line("1", "-4.50"), line("9", "4.50"))}, "lines[0].price", "out_of_range"),
    ({"lines": (replace(line("2", "4.50"), amount=Decimal("9.01")),)}, "lines[0].amount", "does_not_add_up"),
    ({"total": Decimal("9.01")}, "total", "does_not_add_up"),
    ({"taxes": (CodedAmount(code="VAT", amount=Decimal(1)),)}, "total", "does_not_add_up"),
    ({"charges": (CodedAmount(code="POST", amount=Decimal(1)),)}, "total", "does_not_add_up"),
    ({"total": Decimal(10) ** 15}, "total", "out_of_range"),
    ({"taxes": (CodedAmount(code="", amount=Decimal(1)),)}, "taxes[0].code", "required"),
    ({"taxes": (CodedAmount(code="VAT", amount=Decimal("0.001")),)}, "taxes[0].amount", "too_precise"),
    ({"payments": (Payment(method="CASH", amount=Decimal("9.01")),)}, "payments", "does_not_add_up"),
    ({"payments": (Payment(method="CASH", amount=Decimal(-1)),)}, "payments", "does_not_add_up"),
    ({"kind": TransactionKind.CASH_AND_CARRY}, "payments", "does_not_add_up"),
    ({"listed": (GUIDS[0],)}, "listed", "misplaced"),
    ({"kind": TransactionKind.END_OF_DAY}, "lines", "misplaced"),
    ({"kind": TransactionKind.END_OF_DAY, "lines": (), "listed": (GUIDS[0],) * 2}, "listed", "duplicate"),
    ({"kind": TransactionKind.END_OF_DAY, "lines": (), "listed": ("x",)}, "listed", "invalid_id"),
]


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        *INVALID,
        ({"delivery_mode": "a\x00"}, "delivery_mode", "nul"),
        # Headquarters could not read these, so they never come to its rules.
        ({"business_date": date(1, 1, 1)}, "business_date", "out_of_range"),
        ({"business_date": date(9999, 12, 31)}, "business_date", "out_of_range"),
        ({"kind": TransactionKind.END_OF_DAY, "business_date": date.max}, "business_date", "out_of_range"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_violated_rule_is_named(fields: dict[str, Any], field: str, code: str) -> None:
    """The field, as a path, and the rule."""
    assert (field, code) in violations(order(**fields))


@pytest.mark.parametrize(
    ("fields", "field", "code"), INVALID, ids=lambda value: value if isinstance(value, str) else ""
)
def test_invalid_sales_do_not_pass_fast_path(fields: dict[str, Any], field: str, code: str) -> None:
    """Not even if the sums agree with the wrong value."""
    # given
    made = order(**fields)
    if made.kind is TransactionKind.END_OF_DAY:
        made = replace(made, kind=TransactionKind.ORDER, listed=(GUIDS[0],))
    if field != "total":
        made = replace(made, total=total_of(made))
    reader = contract("RetailTransaction")

    # when
    decoded = decode_batch(
        reader, [made.channel_id.encode()], [encode(reader, to_avro(made))], WriterSchemas(), RECORD_BYTES_MAX
    )

    # then
    assert violations(made) >= ({(field, code)} if fields.get("kind") is not TransactionKind.END_OF_DAY else set())
    assert passes_fast_path(decoded.frame, CHANNELS).to_list() == [False]


def test_smallest_128_bit_number_does_not_pass_fast_path() -> None:
    """Its absolute value does not fit 128 bits."""
    # given
    plain = _with_plain_decimals(contract("RetailTransaction").json)
    record = {name: _as_bytes(value) for name, value in to_avro(order()).items()}
    smallest = {"sku": "X", "quantity": _as_bytes(Decimal(1)), "price": b"\x00", "amount": b"\x80" + bytes(15)}
    record["lines"] = [{**{name: _as_bytes(value) for name, value in record["lines"][0].items()}}, smallest, smallest]
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain), record)

    # when
    reader = contract("RetailTransaction")
    decoded = decode_batch(reader, [b"houston"], [reader.header + out.getvalue()], WriterSchemas(), RECORD_BYTES_MAX)

    # then
    assert passes_fast_path(decoded.frame, CHANNELS).to_list() == [False]


def _with_plain_decimals(schema: Any) -> Any:
    """The same encoding without logical types."""
    if isinstance(schema, list):
        return [_with_plain_decimals(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _with_plain_decimals(part) for name, part in schema.items() if name != "default"}
    return {name: part for name, part in kept.items() if name != "logicalType" or part not in ("decimal", "uuid")}


def _as_bytes(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return value
    return int(value * 10**6).to_bytes(16, "big", signed=True)


NUMBERS: Final = st.one_of(
    st.integers(-3, 50).map(Decimal),
    st.decimals(-100, 100, places=3),
    st.sampled_from([Decimal(10) ** 9, Decimal(10) ** 15, Decimal("0.000001"), Decimal(10) ** 20]),
)
TEXTS: Final = st.one_of(
    st.sampled_from(["CUP", "CASH", "", " ", "x" * 61, "a\x00b", "é", "\x1f", "\x85", "\u2003"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)


@st.composite
def transactions(draw: st.DrawFn) -> RetailTransaction:
    """Orders and sales that are valid, or violate one or several rules."""
    currency = draw(st.sampled_from(["USD", "USD", "JPY", "BHD", "XXXX"]))
    counted_in = currency if currency != "XXXX" else "USD"
    sound = st.tuples(st.integers(1, 9).map(Decimal), st.decimals(0, 100, places=3))
    lines = [
        TransactionLine(sku=draw(TEXTS.filter(str.isalnum)), quantity=q, price=p, amount=line_amount(q, p, counted_in))
        for q, p in draw(st.lists(sound, min_size=1, max_size=3))
    ]
    coded = st.lists(
        st.builds(CodedAmount, code=TEXTS, amount=st.integers(-5, 5).map(Decimal)), max_size=draw(st.integers(0, 2))
    )
    made = order(
        kind=draw(st.sampled_from([TransactionKind.ORDER, TransactionKind.CASH_AND_CARRY])),
        currency=currency,
        lines=tuple(lines),
        charges=tuple(draw(coded)),
        taxes=tuple(draw(coded)),
        customer_id=draw(st.sampled_from([None, GUIDS[1], "x"])),
    )
    made = replace(made, total=total_of(made))
    if made.kind is TransactionKind.CASH_AND_CARRY:
        made = replace(made, payments=(Payment(method="CASH", amount=made.total),))
    changes: dict[str, st.SearchStrategy[Any]] = {
        "channel_id": st.sampled_from(["munich", "nowhere"]),
        "total": NUMBERS,
        "lines": st.lists(
            st.builds(TransactionLine, sku=TEXTS, quantity=NUMBERS, price=NUMBERS, amount=NUMBERS), max_size=2
        ).map(tuple),
        "payments": st.lists(st.builds(Payment, method=TEXTS, amount=NUMBERS), max_size=2).map(tuple),
        "customer_event": st.just(b"x"),
        "customer_event_id": st.sampled_from([GUIDS[2], "x"]),
        # A NUL outside of lists makes the record unreadable.
        "delivery_mode": TEXTS.filter(lambda text: "\x00" not in text),
        "delivery_address": st.builds(DeliveryAddress, address_id=st.sampled_from([*GUIDS, "x"]), city=TEXTS),
        "operator": st.sampled_from(["Ann", "李" * 64, "x" * 65, "a\x00"]),
        "listed": st.just(("x",)),
        "attributes": st.lists(
            st.builds(Attribute, name=TEXTS, text=st.none() | TEXTS, decimal=NUMBERS), max_size=2
        ).map(tuple),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(changes)), max_size=2, unique=True))
    made = replace(made, **{name: draw(changes[name]) for name in chosen})
    if draw(st.booleans()):
        # A wrong amount must be detected even if the sums agree with it.
        wrong = [replace(line, amount=line.amount + draw(st.sampled_from([0, 0, 1]))) for line in made.lines]
        made = replace(made, lines=tuple(wrong))
        made = replace(made, total=total_of(made))
        if made.kind is TransactionKind.CASH_AND_CARRY and "payments" not in chosen:
            made = replace(made, payments=(Payment(method="CASH", amount=made.total),))
    return made


@examples(100)
@given(st.lists(transactions(), min_size=1, max_size=20), st.sampled_from([0, SMALL_BATCH]))
def test_fast_path_and_classification_agree_with_rules(made: list[RetailTransaction], small_batch: int) -> None:
    """A sale passes the fast path if and only if it is valid, unless it is large. One whose channel is not known yet,
    and which is valid otherwise, waits; any other one that breaks a rule is rejected.
    """
    # given
    reader = contract("RetailTransaction")
    values = [encode(reader, to_avro(sale)) for sale in made]
    decoded = decode_batch(reader, [sale.channel_id.encode() for sale in made], values, WriterSchemas(), 10**6)
    positions = RecordPositions(topic="t", partitions=[0] * len(made), offsets=range(len(made)))

    # when
    passed = passes_fast_path(decoded.frame, CHANNELS)
    assert not passes_fast_path(decoded.frame, CHANNELS, defining=["usrt"]).any()
    with patch.object(classification, "SMALL_BATCH", small_batch):
        known = KnownChannels(legal_entity_by_channel=CHANNELS, legal_entities=frozenset(CHANNELS.values()))
        classified = classify(decoded, known, positions, {})

    # then
    expected = [violations(sale) for sale in made]
    assert [broken for broken, passes in zip(expected, passed, strict=True) if passes and broken] == []
    slow = [sale for sale, passes in zip(made, passed, strict=True) if not passes and not violations(sale)]
    assert [sale for sale in slow if not is_left_to_rules(sale)] == []
    assert classified.sales["operator"].to_list() == [storable_operator(sale.operator) for sale in made]
    assert classified.sales["status"].to_list() == [status_by_rules(broken) for broken in expected]
    assert [json.loads(content) for content in classified.sales["content"]] == [content_of(sale) for sale in made]


def status_by_rules(broken: set[tuple[str, str]]) -> str:
    """The status of a sale that breaks these rules, each a field and a code."""
    if not broken:
        return "waiting"
    return "blocked" if {code for _, code in broken} == {"unknown_channel"} else "rejected"


def is_left_to_rules(sale: RetailTransaction) -> bool:
    """Whether a number of the sale is too large for the fast path, or it has attributes."""
    numbers = [number for line in sale.lines for number in (line.quantity, line.price, line.amount)]
    numbers += [item.amount for item in (*sale.charges, *sale.taxes)] + [payment.amount for payment in sale.payments]
    return bool(sale.attributes) or any(abs(number) >= 10**9 for number in (*numbers, sale.total))


def test_ordinary_sales_pass_fast_path() -> None:
    """An order, one in yen, a return, and a delivery with a charge."""
    made = [
        order(),
        order(currency="JPY", lines=(line("3", "0.5", "JPY"),), total=Decimal(2)),
        order(
            kind=TransactionKind.CASH_AND_CARRY,
            lines=(line("-1", "4.50"),),
            total=Decimal("-4.50"),
            payments=(Payment(method="CASH", amount=Decimal("-4.50")),),
        ),
        order(
            customer_id=GUIDS[1],
            customer_event_id=GUIDS[2],
            customer_event=b"event",
            operator="Ann",
            delivery_address=DeliveryAddress(address_id=GUIDS[3], city="Houston"),
            charges=(CodedAmount(code="FREIGHT", amount=Decimal(1)),),
            total=Decimal(10),
        ),
    ]
    reader = contract("RetailTransaction")
    values = [encode(reader, to_avro(sale)) for sale in made]
    decoded = decode_batch(reader, [b"houston"] * len(made), values, WriterSchemas(), 10**6)
    assert passes_fast_path(decoded.frame, CHANNELS).to_list() == [True] * len(made)

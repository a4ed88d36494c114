"""Events and transactions as large as a record may be, and whether what headquarters makes of them fits its topics."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from tenten.avro.wire import contract, encode
from tenten.kafka.records import Headers
from tenten.schemas.messages import (
    Address,
    Attribute,
    Contact,
    CustomerEvent,
    CustomerState,
    EventKind,
    SupersededEvent,
    to_avro,
)
from tenten.schemas.topics import EVENT_BYTES_MAX, RECORD_BYTES_MAX, Topic
from tests.customers import IDS, odd_states, valid_states

BROKER_BYTES_MAX: Final = 1_048_588
"""Kafka's default of `max.message.bytes`."""

_RECORD_BYTES: Final = 100
"""More than a batch of one record has beside key, value and headers: at most 61 for the batch and 26 for the record."""

_CHARACTERS: Final = ("x", "é", "😀", "\U000e0001", "\x01", "\x7f", "'", '"', "\\", " ", "/")
_PATHS: Final = ("", "first_name", "no_such_field", "contacts/", "attributes/a", "x" * 70)
_KINDS: Final = tuple(EventKind)


class Framed(bytes):
    """The framed value of a record; a failed test does not print all of it."""

    def __repr__(self) -> str:
        """Its size and its beginning."""
        return f"{len(self)} bytes that begin with {bytes(self[:200])!r}"


def fits(topic: Topic, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
    """Whether the topic accepts this record, even if it cannot be compressed."""
    named = sum(len(name.encode()) + len(text or b"") + 10 for name, text in headers)
    size = _RECORD_BYTES + len(key or b"") + len(value or b"") + named
    return size * 1.005 <= int(topic.configuration.get("max.message.bytes", BROKER_BYTES_MAX))


@st.composite
def events(draw: st.DrawFn) -> Framed:
    """The framed value of an event of at most the largest size, some of whose parts take all the room there is."""
    event = CustomerEvent(
        customer_id=draw(st.sampled_from(IDS)),
        event_id=f"0197a3f2-8a41-7c3e-9d55-{draw(st.integers(0, 2**40)):012x}",
        channel_id=draw(st.sampled_from(("houston", "houston", "dallas", "headquarters", "unknown"))),
        kind=draw(st.sampled_from(_KINDS)),
        occurred_at=datetime(2026, 3, 1, tzinfo=UTC),
        changed=draw(st.lists(st.sampled_from(_PATHS), max_size=3).map(tuple)),
        customer=draw(st.none() | valid_states() | odd_states()),
    )
    for _ in range(draw(st.integers(0, 2))):
        event = draw(_inflated(event))
    return Framed(encode(contract("CustomerEvent"), to_avro(event)))


@st.composite
def _inflated(draw: st.DrawFn, event: CustomerEvent) -> CustomerEvent:
    """The event with one more part that takes what room is left, or a part of that."""
    left = EVENT_BYTES_MAX - len(encode(contract("CustomerEvent"), to_avro(event))) - 64
    room = max(left // draw(st.sampled_from((1, 1, 2, 100))), 0)
    character = draw(st.sampled_from(_CHARACTERS))
    text = character * (room // len(character.encode()))
    path = draw(st.sampled_from(_PATHS))
    larger: list[dict[str, Any]] = [
        {"channel_id": text},
        {"channel_id": text[:64]},
        {"operator": text},
        {"operator": text[:64]},
        {"changed": (text,)},
        {"changed": (path,) * min(room // (len(path) + 2), 60_000)},
        {"supersedes": (SupersededEvent(event_id=text, changed=()),)},
        {"supersedes": (SupersededEvent(event_id=text[:64], changed=(text[64:],)),)},
        {"supersedes": (SupersededEvent(event_id="", changed=()),) * min(room // 3, 12_000)},
        {"supersedes": tuple(SupersededEvent(event_id=event_id, changed=()) for event_id in _ids(room // 40))},
    ]
    if event.customer is not None:
        customers = _larger(event.customer, draw(st.integers(1, 100)), room, text)
        larger += [{"customer": customer} for customer in customers] * 2
    return replace(event, **draw(st.sampled_from(larger)))


def _larger(state: CustomerState, members: int, room: int, text: str) -> list[CustomerState]:
    """The customer with one part as large as there is room for, and one that is as large as rules allow."""
    each = text[: max(room // members // max(len(text[:1].encode()), 1) - 60, 0)]
    address = Address(address_id=IDS[0], street=each, updated_at=_TIME, country="US")
    contact = Contact(contact_id=IDS[0], kind="EMAIL", value=f"{each}@example.com")
    return [
        replace(state, legal_entity=text),
        replace(state, legal_entity=text[:64]),
        replace(state, first_name=text),
        replace(state, affiliations=tuple(f"{number}{each}" for number in range(members))),
        replace(state, addresses=tuple(replace(address, address_id=address_id) for address_id in _ids(members))),
        replace(state, contacts=tuple(replace(contact, contact_id=contact_id) for contact_id in _ids(members))),
        replace(state, attributes=tuple(Attribute(name=f"{number}", text=each) for number in range(members))),
        _as_large_as_allowed(text[:1], room),
    ]


def _as_large_as_allowed(character: str, room: int) -> CustomerState:
    """A valid customer with texts as long as rules allow, and as many parts as there is room for."""
    members = min(100, room // (1_500 * max(len(character.encode()), 1)))
    address = Address(
        address_id=IDS[0],
        name=character * 100,
        street=character * 250,
        city=character * 60,
        country="US",
        updated_at=_TIME,
    )
    return CustomerState(
        legal_entity="usrt",
        first_name=character * 100,
        last_name="x" * 100,
        addresses=tuple(replace(address, address_id=address_id) for address_id in _ids(members)),
        attributes=tuple(Attribute(name=f"{number:03}", text=character * 1_000) for number in range(members)),
    )


def _ids(count: int) -> list[str]:
    """Different ids, as many as an event may supersede at most."""
    return [f"0197a3f2-8a41-7c3e-9d55-{number:012x}" for number in range(min(count, 9_999))]


_TIME: Final = datetime(2026, 3, 1, tzinfo=UTC)


@st.composite
def transactions(draw: st.DrawFn) -> Framed:
    """The framed value of an order, a sale or an end of day, with a part that takes all the room there is."""
    kind = draw(st.sampled_from(("ORDER", "CASH_AND_CARRY", "END_OF_DAY")))
    record: dict[str, Any] = {
        "channel_id": draw(st.sampled_from(("houston", "dallas", "unknown"))),
        "transaction_id": f"0197a3f2-8a41-7c3e-9d55-{draw(st.integers(0, 2**40)):012x}",
        "kind": kind,
        "occurred_at": datetime(2026, 3, 1, tzinfo=UTC),
        "business_date": date(2026, 3, 1),
        "legal_entity": "usrt",
        "currency": draw(st.sampled_from(("USD", "XXX", "usd"))),
        "total": Decimal(9),
        "delivery_mode": "",
        **{name: [] for name in ("lines", "charges", "taxes", "payments", "listed", "control_totals")},
        "lines": [] if kind == "END_OF_DAY" else [_LINE],
    }
    if draw(st.booleans()):
        record |= {"customer_id": IDS[0], "customer_event_id": IDS[1], "customer_event": draw(events())}
    room = RECORD_BYTES_MAX - len(encode(contract("RetailTransaction"), record)) - 64
    room = max(room // draw(st.sampled_from((1, 1, 2, 100))), 0)
    character = draw(st.sampled_from(_CHARACTERS))
    text = character * (room // len(character.encode()))
    amount = draw(st.sampled_from((Decimal(9), Decimal("0.001"), Decimal(10) ** 20)))
    several = draw(st.integers(1, 3_000))
    each = text[: room // several // max(len(character.encode()), 1)]
    larger: dict[str, Any] = {
        "channel_id": draw(st.sampled_from((text, text[:64]))),
        "legal_entity": draw(st.sampled_from((text, text[:64]))),
        "operator": text,
        "currency": text,
        "delivery_mode": text,
        "delivery_address": {**dict.fromkeys(_ADDRESS, text[: len(text) // len(_ADDRESS)]), "address_id": IDS[0]},
        "lines": [{**_LINE, "sku": each, "price": amount} for _ in range(several)],
        "charges": [{"code": each, "amount": amount} for _ in range(several)],
        "payments": [{"method": each, "amount": amount} for _ in range(several)],
        "listed": [f"0197a3f2-8a41-7c3e-9d55-{number:012x}" for number in range(min(room // 40, 25_000))],
        "control_totals": [
            {"currency": "USD", "payment_method": f"{number}{each}", "amount": amount} for number in range(several)
        ],
        "customer_event": text.encode(),
        "all lists": {
            "lines": [{**_LINE, "sku": "", "price": amount}] * 1_000,
            **dict.fromkeys(("charges", "taxes"), [{"code": "", "amount": amount}] * 1_000),
            "payments": [{"method": "", "amount": amount}] * 1_000,
        },
    }
    name = draw(st.sampled_from([*larger]))
    part = larger[name] if name == "all lists" else {name: larger[name]}
    value = encode(contract("RetailTransaction"), record | part)
    return Framed(value if len(value) <= RECORD_BYTES_MAX else encode(contract("RetailTransaction"), record))


_LINE: Final = {"sku": "TEA", "quantity": Decimal(1), "price": Decimal(9), "amount": Decimal(9)}
_ADDRESS: Final = ("name", "street", "city", "county", "state", "postal_code", "country")

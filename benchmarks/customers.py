"""Synthetic customers: realistic, the same ones for the same seed, and made fast.

A few hundred different customers are encoded once, with a mark in each place where no two customers are the same (ids,
phone number, e-mail address, account number). Every mark is as long as what replaces it, so a customer is made by
putting its own texts into one of those encodings. UUIDv7 ids rise with the order in which customers are made, as they
do in a store.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from tenten.avro.wire import contract, encode
from tenten.rules.customer import changed_paths
from tenten.schemas.messages import (
    EMAIL,
    PHONE,
    Address,
    Attribute,
    Contact,
    Customer,
    CustomerEvent,
    CustomerState,
    CustomerType,
    EventKind,
    ReceiptPreference,
    canonical,
    to_avro,
)

LEGAL_ENTITY: Final = "usrt"
CHANNELS: Final = ("houston", "seattle", "boston")
ADDRESS_BOOK: Final = "US"

_SEED: Final = 1010
_TEMPLATES: Final = 400
_STARTED_AT: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
CUSTOMERS_A_SECOND: Final = 50
"""How fast the ids' clock goes; it begins at `_STARTED_AT`."""

_CUSTOMER, _EVENT, _ADDRESS, _SECOND_ADDRESS, _PHONE_ID, _EMAIL_ID = (
    f"ffffffff-ffff-7fff-bfff-fffffffffff{place}" for place in range(6)
)
_PHONE_MARK: Final = "+1##########"
_EMAIL_MARK: Final = "~~~~~~~~"
_NUMBER_MARK: Final = "C-@@@@@@@@"
_MARKS: Final = (
    _CUSTOMER,
    _EVENT,
    _ADDRESS,
    _SECOND_ADDRESS,
    _PHONE_ID,
    _EMAIL_ID,
    _PHONE_MARK,
    _EMAIL_MARK,
    _NUMBER_MARK,
)

_FIRST_NAMES: Final = (
    *(
        "Olivia",
        "Liam",
        "Emma",
        "Noah",
        "Ava",
        "Elijah",
        "Sophia",
        "Mateo",
        "Isabella",
        "Lucas",
        "Mia",
        "Levi",
        "Amelia",
    ),
    *(
        "Ezra",
        "Harper",
        "Asher",
        "Zoë",
        "José",
        "Renée",
        "Björn",
        "Siobhán",
        "Nguyễn",
        "Małgorzata",
        "François",
        "Ángela",
    ),
    *("James", "Mary", "Robert", "Patricia", "John", "Jennifer", "Michael", "Linda", "David", "Elizabeth", "William"),
)
_LAST_NAMES: Final = (
    *(
        "Smith",
        "Johnson",
        "Williams",
        "Brown",
        "Jones",
        "Garcia",
        "Miller",
        "Davis",
        "Rodriguez",
        "Martinez",
        "Hernandez",
    ),
    *(
        "Lopez",
        "Gonzalez",
        "Wilson",
        "Anderson",
        "Thomas",
        "Taylor",
        "Moore",
        "Jackson",
        "Martin",
        "Lee",
        "Pérez",
        "White",
    ),
    *("O'Connor", "Müller", "Nowak", "Kowalczyk", "Sørensen", "Trần", "D'Angelo", "Fernández-Villaverde", "Okonkwo"),
)
_STREETS: Final = ("Main St", "Westheimer Rd", "Pine Ave", "Beacon Street", "Old Mill Ln", "Martin Luther King Jr Blvd")
_CITIES: Final = (
    ("Houston", "Harris", "TX", "770"),
    ("Seattle", "King", "WA", "981"),
    ("Boston", "Suffolk", "MA", "021"),
    ("San Antonio", "Bexar", "TX", "782"),
    ("Cambridge", "Middlesex", "MA", "021"),
    ("Spokane", "Spokane", "WA", "992"),
)
_TRADES: Final = ("Bakery", "Logistics", "Dental Care", "Builders", "Consulting", "Auto Parts")
_MAIL_DOMAINS: Final = ("example.com", "example.net", "mail.example.org")
_AREA_CODES: Final = (b"713", b"206", b"617", b"210", b"509", b"857", b"425", b"281")


class Record(NamedTuple):
    """A record ready to be produced."""

    key: bytes
    value: bytes
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoding:
    """A framed value with a mark in each place that differs from customer to customer."""

    format: bytes
    marks: tuple[int, ...]
    """Which of `_MARKS` the places of the format stand for."""

    def made(self, texts: tuple[bytes, ...]) -> bytes:
        """The value with these texts in place of the marks."""
        return self.format % tuple(texts[mark] for mark in self.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """One of the different customers: as its store created it, as its first and as its second snapshot."""

    event: _Encoding
    first: _Encoding
    second: _Encoding


def events(count: int, *, seed: int = _SEED) -> Iterator[Record]:
    """That many creations of different customers, from three channels in turn, as relays send them."""
    for template, texts, event_id in _customers(count, seed):
        yield Record(texts[0], template.event.made(texts), event_id)


def snapshots(count: int, version: int, *, seed: int = _SEED) -> Iterator[Record]:
    """The first (1) or second (2) snapshot of the same customers, in the same order.

    The second differs from the first in the customer's own fields; a fifth of the customers also have another street.
    """
    for template, texts, event_id in _customers(count, seed):
        encoding = template.first if version == 1 else template.second
        yield Record(texts[0], encoding.made(texts), event_id)


def _customers(count: int, seed: int) -> Iterator[tuple[_Template, tuple[bytes, ...], str]]:
    """Per customer a template, the texts in place of the marks, and the id of its event."""
    chance = random.Random(seed)
    templates = [_template(chance, CHANNELS[place % len(CHANNELS)]) for place in range(_TEMPLATES)]
    started_ms = int(_STARTED_AT.timestamp() * 1000) + seed % 1000 * 86_400_000
    for number in range(count):
        made = guids(started_ms + number * 1000 // CUSTOMERS_A_SECOND, chance)
        area, digits = divmod(number, 7_000_000)
        phone = b"+1%b%07d" % (_AREA_CODES[(area + seed) % len(_AREA_CODES)], 2_000_000 + digits)
        texts = (*made, phone, b"%08d" % number, b"C-%08d" % (number + 1))
        yield templates[number % _TEMPLATES], texts, made[1].decode()


def guids(at_ms: int, chance: random.Random) -> list[bytes]:
    """A UUIDv7 for each of the ids of one record, six at most: milliseconds, a counter within them, chance.

    Source: RFC 9562, section 5.7.
    """
    start = b"%08x-%04x-7" % (at_ms >> 16, at_ms & 0xFFFF)
    digits = chance.randbytes(48).hex().encode()
    return [
        b"%b%03x-a%b-%b" % (start, place, digits[first : first + 3], digits[first + 3 : first + 15])
        for place, first in enumerate(range(0, 90, 15))
    ]


def _template(chance: random.Random, channel: str) -> _Template:
    state = _state(chance)
    changed = replace(
        state,
        title="Ms." if state.title == "Mr." else "Mr.",
        customer_group=f"{state.customer_group}-gold",
        tax_number=f"TX-{chance.randrange(10**6):06d}",
        addresses=(replace(state.addresses[0], street="1 Elm St, Apt 7"), *state.addresses[1:])
        if chance.random() < 0.2
        else state.addresses,
    )
    event = CustomerEvent(
        customer_id=_CUSTOMER,
        event_id=_EVENT,
        channel_id=channel,
        kind=EventKind.CREATED,
        occurred_at=_STARTED_AT,
        changed=changed_paths(None, state),
        customer=state,
    )
    return _Template(
        event=_encoding(event), first=_encoding(_snapshot(state, 1)), second=_encoding(_snapshot(changed, 2))
    )


def _snapshot(state: CustomerState, version: int) -> Customer:
    return Customer(
        customer_id=_CUSTOMER, account_number=_NUMBER_MARK, version=version, updated_at=_STARTED_AT, customer=state
    )


def _encoding(record: CustomerEvent | Customer) -> _Encoding:
    value = encode(contract(type(record).__name__), to_avro(record))
    parts = re.split(b"(" + b"|".join(re.escape(mark.encode()) for mark in _MARKS) + b")", value)
    literals = [part.replace(b"%", b"%%") for part in parts[::2]]
    return _Encoding(format=b"%b".join(literals), marks=tuple(_MARKS.index(mark.decode()) for mark in parts[1::2]))


def _state(chance: random.Random) -> CustomerState:
    first, last = chance.choice(_FIRST_NAMES), chance.choice(_LAST_NAMES)
    organization = chance.random() < 0.05
    email = f"customer.{_EMAIL_MARK}@{chance.choice(_MAIL_DOMAINS)}"
    with_email = chance.random() < 0.6
    contacts = [Contact(contact_id=_PHONE_ID, kind=PHONE, value=_PHONE_MARK, description="mobile")]
    if with_email:
        contacts.append(Contact(contact_id=_EMAIL_ID, kind=EMAIL, value=email, marketing_consent=chance.random() < 0.4))
    addresses = [_address(chance, _ADDRESS, "BUSINESS" if organization else "HOME")]
    if chance.random() < 0.3:
        addresses.append(_address(chance, _SECOND_ADDRESS, "DELIVERY"))
    return canonical(
        CustomerState(
            legal_entity=LEGAL_ENTITY,
            customer_type=CustomerType.ORGANIZATION if organization else CustomerType.PERSON,
            title=chance.choice(("Mr.", "Ms.", "Dr.", "")),
            first_name=first,
            middle_name=chance.choice(("", "", "J.", "Marie")),
            last_name=last,
            organization_name=f"{last} {chance.choice(_TRADES)} Inc." if organization else "",
            language="en-US",
            currency="USD",
            customer_group=chance.choice(("retail", "retail", "wholesale")),
            receipt_preference=ReceiptPreference.EMAIL if with_email else ReceiptPreference.PRINT,
            receipt_email=email if with_email else "",
            tax_number="",
            primary_address=_ADDRESS,
            primary_phone=_PHONE_ID,
            primary_email=_EMAIL_ID if with_email else None,
            address_books=(ADDRESS_BOOK,),
            affiliations=("loyal",) if chance.random() < 0.3 else (),
            addresses=tuple(addresses),
            contacts=tuple(contacts),
            attributes=(Attribute(name="shoe size", integer=chance.randrange(5, 14)),) if chance.random() < 0.2 else (),
        )
    )


def _address(chance: random.Random, address_id: str, purpose: str) -> Address:
    city, county, state, postal_code = chance.choice(_CITIES)
    return Address(
        address_id=address_id,
        purpose=purpose,
        street=f"{chance.randrange(1, 9999)} {chance.choice(_STREETS)}",
        city=city,
        county=county,
        state=state,
        postal_code=f"{postal_code}{chance.randrange(100):02d}",
        country="US",
        updated_at=_STARTED_AT,
    )

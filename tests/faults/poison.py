"""Records that are no events, made by hypothesis: everything that may come in from a broken or hostile writer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final

import fastavro
from fastavro.schema import parse_schema
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.faults.avro import declaration, encode, single_object_header
from tests.faults.journal import Operation

_HEADER: Final = single_object_header("CustomerEvent")
_GUID: Final = b"0190b5d2-7c1e-7000-8000-%012d"
_TIME: Final = 1_772_452_800_000_000
"""A moment of 2026, in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A record, and what it is; `certain` when it cannot be read as an event whatever one does."""

    kind: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    certain: bool

    def operation(self) -> Operation:
        """The same, to be written."""
        return Operation(key=self.key, value=self.value, headers=self.headers)


def sample(count: int, number: int) -> list[Poison]:
    """So many of them, the same for the same number."""
    found: list[Poison] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(poison())
    def collect(one: Poison) -> None:
        found.append(one)

    collect()
    return found


@cache
def _loose_schema() -> Any:
    """The contract's binary form without its meaning: texts are bytes, symbols and times are numbers."""
    return parse_schema(_loosened(declaration("CustomerEvent")))


def _loosened(part: Any) -> Any:
    """A type in its loose form: a name, a union, or a declaration."""
    if isinstance(part, list):
        return [_loosened(one) for one in part]
    kind = part["type"] if isinstance(part, dict) else part
    if kind == "array":
        return {"type": "array", "items": _loosened(part["items"])}
    if kind == "record":
        fields = [{"name": one["name"], "type": _loosened(one["type"])} for one in part["fields"]]
        return {"type": "record", "name": part["name"], "fields": fields}
    return {"string": "bytes", "enum": "long"}.get(kind, kind)


def _body(event: dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, _loose_schema(), event)
    return out.getvalue()


_TEXTS: Final = ("title", "first_name", "middle_name", "last_name", "organization_name", "language", "currency")
_MORE_TEXTS: Final = ("customer_group", "receipt_email", "tax_number")


def _event(number: int) -> dict[str, Any]:
    """A sound event, in the loose form."""
    customer: dict[str, Any] = dict.fromkeys((*_TEXTS, *_MORE_TEXTS), b"") | {
        "legal_entity": b"usrt",
        "customer_type": 0,
        "first_name": b"Ann",
        "receipt_preference": 0,
        "primary_address": None,
        "primary_phone": None,
        "primary_email": None,
        "address_books": [],
        "affiliations": [],
        "addresses": [_address(number)],
        "contacts": [],
        "attributes": [],
    }
    return {
        "customer_id": _GUID % number,
        "event_id": _GUID % (number + 1),
        "channel_id": b"houston",
        "kind": 0,
        "occurred_at": _TIME,
        "based_on_version": 0,
        "changed": [b"first_name"],
        "supersedes": [],
        "customer": customer,
    }


def _address(number: int) -> dict[str, Any]:
    names = ("purpose", "name", "street", "city", "county", "state", "postal_code")
    return dict.fromkeys(names, b"") | {"address_id": _GUID % number, "country": b"US", "updated_at": _TIME}


Spoiler = Callable[[DrawFn, dict[str, Any]], tuple[bytes | None, bytes | None]]
"""Gives key and value."""


def _framed(event: dict[str, Any]) -> tuple[bytes, bytes]:
    return event["customer_id"], _HEADER + _body(event)


def _null(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return event["customer_id"], None


def _random(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return draw(st.none() | st.binary(max_size=40)), draw(st.binary(max_size=200))


def _random_body(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return event["customer_id"], _HEADER + draw(st.binary(max_size=200))


def _random_behind_the_id(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """So much is right that the record looks like this customer's."""
    key, value = _framed(event)
    return key, value[: len(_HEADER) + 37] + draw(st.binary(max_size=100))


def _truncated(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    key, value = _framed(event)
    return key, value[: draw(st.integers(0, len(value) - 1))]


def _trailing(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    key, value = _framed(event)
    return key, value + draw(st.binary(min_size=1, max_size=50) | st.just(value))


def _other_fingerprint(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return event["customer_id"], b"\xc3\x01" + draw(st.binary(min_size=8, max_size=8)) + _body(event)


def _confluent(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return event["customer_id"], b"\x00" + draw(st.binary(min_size=4, max_size=4)) + _body(event)


def _other_key(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    key, value = _framed(event)
    other = st.sampled_from([None, b"", key.upper(), key + b" ", b"\xff" * 36, b"{" + key + b"}"])
    return draw(other | st.binary(max_size=40).filter(lambda one: one != key)), value


def _other_contract(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """A reply that went to the wrong topic, as a reply or as an event."""
    guid = event["customer_id"].decode()
    reply = {
        "channel_id": draw(st.sampled_from(["houston", guid])),
        "event_id": guid,
        "customer_id": guid,
        "outcome": "ERASED",
        "answered_at": _TIME,
    }
    value = encode("Reply", reply)
    return event["customer_id"], draw(st.sampled_from([value, _HEADER + value[len(_HEADER) :]]))


def _other_symbol(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    record, name = draw(st.sampled_from([(event, "kind"), (event["customer"], "customer_type")]))
    record[name] = draw(st.integers(4, 2**40) | st.integers(-(2**40), -1) | st.integers(2**62, 2**63 - 1))
    return _framed(event)


def _other_time(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    record, name = draw(st.sampled_from([(event, "occurred_at"), (event["customer"]["addresses"][0], "updated_at")]))
    # Before the year 1 and after the year 9999.
    record[name] = draw(st.integers(-(2**63), -(2**56)) | st.integers(2**58, 2**63 - 1))
    return _framed(event)


def _no_guid(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    guid: bytes = event["event_id"]
    wrong = st.sampled_from([guid.upper(), guid[:-1], guid + b"0", b"", guid.replace(b"-", b""), b"\x00" * 36])
    event[draw(st.sampled_from(["event_id", "customer_id"]))] = draw(wrong | st.binary(max_size=50))
    return _framed(event)


def _no_text(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """Bytes that are no UTF-8: lone continuation bytes, overlong forms, surrogates."""
    bad = draw(st.sampled_from([b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"a\xf5\x80\x80\x80", b"caf\xe9"]))
    record, name = draw(
        st.sampled_from(
            [(event, "channel_id"), (event["customer"], "last_name"), (event["customer"]["addresses"][0], "street")]
        )
    )
    record[name] = bad
    return _framed(event)


def _nul_in_channel(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    event["channel_id"] = draw(st.sampled_from([b"\x00", b"houston\x00", b"hou\x00ston"]))
    return _framed(event)


def _huge_count(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """A list or a text that says that it is longer than everything there is, or shorter than nothing."""
    key, value = _framed(event)
    lists = value.index(b"\x02\x14first_name")  # where `changed` says how many there are
    place = draw(st.sampled_from([lists, lists + 1, len(_HEADER) + 37, len(_HEADER)]))
    number = draw(st.integers(2**20, 2**63 - 1) | st.integers(-(2**63), -2))
    return key, value[:place] + _zigzag(number) + value[place + 1 :]


def _endless_number(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """A number whose bytes all say that more follow."""
    key, value = _framed(event)
    place = draw(st.integers(len(_HEADER) + 37, len(value) - 1))
    return key, value[:place] + b"\xff" * draw(st.integers(10, 400))


def _huge(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """Sound, and larger than headquarters takes; compressed it fits the topic."""
    event["customer"]["title"] = b"A" * draw(st.sampled_from([524_288, 1_500_000]))
    return _framed(event)


def _zigzag(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def _one_byte_other(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """May still be an event, and then it counts as one."""
    key, value = _framed(event)
    place = draw(st.integers(len(_HEADER) + 37, len(value) - 1))
    return key, value[:place] + draw(st.binary(min_size=1, max_size=1)) + value[place + 1 :]


def _odd(draw: DrawFn, event: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    """An event by its form, with content that no store sends."""
    customer = event["customer"]
    what = draw(st.integers(0, 8))
    if what == 0:
        customer["last_name"] = b"a\x00b"
    elif what == 1:
        event["supersedes"] = [{"event_id": draw(st.sampled_from([b"x", b"", b"\x00", b"'; --"])), "changed": [b"a"]}]
    elif what == 2:
        event["changed"] = [b"\x00", b"addresses/", b"attributes/" + b"x" * 1000, b"legal_entity"]
    elif what == 3:
        customer["primary_address"] = b"no guid"
        customer["addresses"][0]["address_id"] = b"no guid"
    elif what == 4:
        values = {"text": None, "integer": None, "boolean": None, "decimal": draw(st.binary(min_size=12, max_size=80))}
        customer["attributes"] = [{"name": b"\x00", **values}]
    elif what == 5:
        event["channel_id"] = draw(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
        ).encode()
    elif what == 6:
        event["customer"] = None
    elif what == 7:
        event["kind"] = draw(st.integers(1, 3))
        event["based_on_version"] = draw(st.integers(-(2**63), 2**63 - 1))
    else:
        customer["affiliations"] = [b"x"] * 500
        customer["legal_entity"] = draw(st.sampled_from([b"", b"\x00", b"x" * 10_000]))
    return _framed(event)


_CERTAIN: Final[dict[str, Spoiler]] = {
    one.__name__.strip("_"): one
    for one in (
        _null,
        _random,
        _random_body,
        _random_behind_the_id,
        _truncated,
        _trailing,
        _other_fingerprint,
        _confluent,
        _other_key,
        _other_contract,
        _other_symbol,
        _other_time,
        _no_guid,
        _no_text,
        _nul_in_channel,
        _huge_count,
        _endless_number,
        _huge,
    )
}
_UNCERTAIN: Final[dict[str, Spoiler]] = {"one_byte_other": _one_byte_other, "odd": _odd}
_HUGE_PER_THOUSAND: Final = 5


@st.composite
def _poison(draw: DrawFn) -> Poison:
    names = [name for name in (*_CERTAIN, *_UNCERTAIN) if name != "huge"]
    # Not near the ends of the range: those come up too often.
    kind = "huge" if 0 <= draw(st.integers(0, 999)) - 500 < _HUGE_PER_THOUSAND else draw(st.sampled_from(names))
    event = _event(draw(st.integers(0, 10**11)) * 2)
    key, value = (_CERTAIN | _UNCERTAIN)[kind](draw, event)
    names_of_headers = st.sampled_from(["id", "type", "traceparent", "x", "x-dlq-attempt"])
    headers = draw(st.lists(st.tuples(names_of_headers, st.none() | st.binary(max_size=20)), max_size=3))
    return Poison(kind=kind, key=key, value=value, headers=tuple(headers), certain=kind in _CERTAIN)


def poison() -> SearchStrategy[Poison]:
    """One record of any kind."""
    return _poison()

"""Merging customer input, and the relay's framing."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.wire import confluent_header, contract, decode_body, encode
from tenten.producers.outbox.queue import multirange
from tenten.producers.relay.producer import framing
from tenten.producers.till.customer_input import CustomerFields, NewAddress
from tenten.producers.till.customer_merge import InputContext, merge_input
from tenten.rules.customer import changed_paths
from tenten.rules.customer_rules import reasons
from tenten.schemas.messages import (
    Contact,
    CustomerEvent,
    CustomerState,
    EventKind,
    canonical,
    event_from_avro,
    to_avro,
)
from tests.customers import EMAILS, NAMES, PHONES, valid_states

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GUID = "0197a3f2-8a41-7c3e-9d55-0f6b1c2d3e4f"


def context() -> InputContext:
    """A store in the United States, with numbered new ids."""
    numbers = count(1)
    return InputContext(country="US", now=NOW, new_id=lambda: f"0197a3f2-8a41-7c3e-9d55-{next(numbers):012x}")


@st.composite
def fields(draw: st.DrawFn) -> CustomerFields:
    """Some customer input."""
    values: CustomerFields = {
        "first_name": draw(st.sampled_from(NAMES)),
        "email": draw(st.sampled_from(EMAILS)),
        "phone": draw(st.sampled_from(PHONES)),
        "address": NewAddress(
            city=draw(st.sampled_from(NAMES)), country=draw(st.sampled_from(("US", "fr", "Germany")))
        ),
        "attributes": {"size": draw(st.none() | st.integers(0, 50) | st.decimals("0", "9", places=2) | st.booleans())},
        "remove_affiliations": draw(st.lists(st.sampled_from(("VIP", "staff/family")), max_size=2)),
    }
    return {name: values[name] for name in draw(st.sets(st.sampled_from(sorted(values))))}  # type: ignore[return-value, literal-required]  # a subset of the fields


@given(valid_states(), fields())
def test_merging_the_same_input_twice_is_idempotent(state: CustomerState, entered: CustomerFields) -> None:
    """A repeated edit changes nothing, and the merged customer is canonical."""
    # when
    once = merge_input(state, entered, context())
    # then
    assert merge_input(once, entered, context()) == once == canonical(once)
    assert changed_paths(once, merge_input(once, entered, context())) == ()


@given(valid_states(), fields())
def test_omitted_fields_are_unchanged(state: CustomerState, entered: CustomerFields) -> None:
    """Only paths of the given fields change."""
    # given
    paths_of = {
        "first_name": ("first_name",),
        "email": ("primary_email", "contacts/"),
        "phone": ("primary_phone", "contacts/"),
        "address": ("primary_address", "addresses/"),
        "attributes": ("attributes/size",),
        "remove_affiliations": ("affiliations/VIP", "affiliations/staff/family"),
    }
    allowed = tuple(path for name in entered for path in paths_of[name])
    # when
    after = merge_input(state, entered, context())
    # then
    assert all(path.startswith(allowed) for path in changed_paths(state, after))


def test_value_without_a_normal_form_is_kept_and_rejected() -> None:
    """The clerk sees the entered text with the reason."""
    # when
    state = merge_input(
        CustomerState(legal_entity="usrt", last_name="Lovelace"),
        {"phone": " 12 ", "email": "ada at example", "address": NewAddress(country="Atlantis")},
        context(),
    )
    # then
    assert {contact.value for contact in state.contacts} == {"12", "ada at example"}
    assert state.addresses[0].country == "Atlantis"
    assert {reason.code for reason in reasons(state)} == {"invalid_phone", "invalid_email", "unknown_country"}


def test_existing_value_becomes_the_primary_one() -> None:
    """The same e-mail address is never stored twice."""
    # given
    other = Contact(contact_id=GUID, kind="EMAIL", value="ada@example.com")
    state = merge_input(CustomerState(legal_entity="usrt"), {"email": "countess@example.com"}, context())
    state = merge_input(state, {"put_contacts": [other]}, context())
    # when
    after = merge_input(state, {"email": "ada@EXAMPLE.com"}, context())
    # then
    assert after.contacts == state.contacts
    assert after.primary_email == GUID


def test_empty_value_removes_the_primary_contact() -> None:
    """And nothing else."""
    # given
    entered: CustomerFields = {"email": "ada@example.com", "phone": "713 555 0123", "attributes": {"size": Decimal(1)}}
    state = merge_input(CustomerState(legal_entity="usrt"), entered, context())
    # when
    after = merge_input(state, {"email": ""}, context())
    # then
    assert (after.primary_email, [contact.value for contact in after.contacts]) == (None, ["+17135550123"])


def test_registry_header_replaces_the_fingerprint_header() -> None:
    """The body keeps its bytes; without a registry the payload is unchanged."""
    # given
    schema = contract("CustomerEvent")
    event = CustomerEvent(
        customer_id=GUID, event_id=GUID, channel_id="houston", kind=EventKind.TOUCHED, occurred_at=NOW
    )
    payload = encode(schema, to_avro(event))
    # when
    framed = framing(confluent_header(7))
    # then
    assert framed is not None
    assert framed(payload) == b"\x00\x00\x00\x00\x07" + payload[10:]
    assert event_from_avro(decode_body(framed(payload)[5:], schema, schema)) == event
    assert framing(schema.header) is None


@given(st.sets(st.integers(1, 60)))
def test_multirange_has_exactly_its_numbers(numbers: set[int]) -> None:
    """Neighbours are one range, and no number between two ranges is in it."""
    # when
    ranges = [part.split(",") for part in multirange(list(numbers)).strip("{}[)").split("),[") if part]
    # then
    assert {number for first, end in ranges for number in range(int(first), int(end))} == numbers
    assert all(int(end) < int(first) for (_, end), (first, _) in pairwise(ranges))

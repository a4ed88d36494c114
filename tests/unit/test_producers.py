"""What a clerk says folded into a customer, and the relay's framing: rules without a server."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from tenten.avro.wire import confluent_header, contract, decode_body, encode
from tenten.producers.outbox import multirange
from tenten.producers.relay.producer import framing
from tenten.producers.till.customer_input import CustomerFields, Entering, NewAddress, with_fields
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


def entering() -> Entering:
    """A clerk of a store in the United States, whose new ids are counted."""
    numbers = count(1)
    return Entering(country="US", now=NOW, new_id=lambda: f"0197a3f2-8a41-7c3e-9d55-{next(numbers):012x}")


@st.composite
def fields(draw: st.DrawFn) -> CustomerFields:
    """Something said of a customer."""
    said: CustomerFields = {
        "first_name": draw(st.sampled_from(NAMES)),
        "email": draw(st.sampled_from(EMAILS)),
        "phone": draw(st.sampled_from(PHONES)),
        "address": NewAddress(
            city=draw(st.sampled_from(NAMES)), country=draw(st.sampled_from(("US", "fr", "Germany")))
        ),
        "attributes": {"size": draw(st.none() | st.integers(0, 50) | st.decimals("0", "9", places=2) | st.booleans())},
        "remove_affiliations": draw(st.lists(st.sampled_from(("VIP", "staff/family")), max_size=2)),
    }
    return {name: said[name] for name in draw(st.sets(st.sampled_from(sorted(said))))}  # type: ignore[return-value, literal-required]  # some of its own fields


@given(valid_states(), fields())
def test_saying_the_same_twice_changes_nothing_more(state: CustomerState, said: CustomerFields) -> None:
    """An edit that is repeated is no edit, and what a valid customer becomes is canonical."""
    # when
    once = with_fields(state, said, entering())
    # then
    assert with_fields(once, said, entering()) == once == canonical(once)
    assert changed_paths(once, with_fields(once, said, entering())) == ()


@given(valid_states(), fields())
def test_what_is_not_said_stays(state: CustomerState, said: CustomerFields) -> None:
    """No path changes but those of what was said."""
    # given
    paths_of = {
        "first_name": ("first_name",),
        "email": ("primary_email", "contacts/"),
        "phone": ("primary_phone", "contacts/"),
        "address": ("primary_address", "addresses/"),
        "attributes": ("attributes/size",),
        "remove_affiliations": ("affiliations/VIP", "affiliations/staff/family"),
    }
    allowed = tuple(path for name in said for path in paths_of[name])
    # when
    after = with_fields(state, said, entering())
    # then
    assert all(path.startswith(allowed) for path in changed_paths(state, after))


def test_what_has_no_normal_form_is_kept_and_refused_with_a_reason() -> None:
    """The clerk sees his own words beside the reason."""
    # when
    state = with_fields(
        CustomerState(legal_entity="usrt", last_name="Lovelace"),
        {"phone": " 12 ", "email": "ada at example", "address": NewAddress(country="Atlantis")},
        entering(),
    )
    # then
    assert {one.value for one in state.contacts} == {"12", "ada at example"}
    assert state.addresses[0].country == "Atlantis"
    assert {reason.code for reason in reasons(state)} == {"invalid_phone", "invalid_email", "unknown_country"}


def test_a_value_that_is_there_already_becomes_the_primary_one() -> None:
    """The same e-mail address never stands there twice."""
    # given
    other = Contact(contact_id=GUID, kind="EMAIL", value="ada@example.com")
    state = with_fields(CustomerState(legal_entity="usrt"), {"email": "countess@example.com"}, entering())
    state = with_fields(state, {"put_contacts": [other]}, entering())
    # when
    after = with_fields(state, {"email": "ada@EXAMPLE.com"}, entering())
    # then
    assert after.contacts == state.contacts
    assert after.primary_email == GUID


def test_an_empty_value_takes_the_primary_one_away() -> None:
    """And nothing else."""
    # given
    said: CustomerFields = {"email": "ada@example.com", "phone": "713 555 0123", "attributes": {"size": Decimal(1)}}
    state = with_fields(CustomerState(legal_entity="usrt"), said, entering())
    # when
    after = with_fields(state, {"email": ""}, entering())
    # then
    assert (after.primary_email, [one.value for one in after.contacts]) == (None, ["+17135550123"])


def test_with_a_registry_an_event_gets_its_header_and_keeps_its_bytes() -> None:
    """Without one it stays as it was written."""
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
def test_a_multirange_has_exactly_the_numbers_it_was_made_of(numbers: set[int]) -> None:
    """Neighbours are one range, and no number between two ranges is in it."""
    # when
    ranges = [part.split(",") for part in multirange(list(numbers)).strip("{}[)").split("),[") if part]
    # then
    assert {number for first, end in ranges for number in range(int(first), int(end))} == numbers
    assert all(int(end) < int(first) for (_, end), (first, _) in pairwise(ranges))

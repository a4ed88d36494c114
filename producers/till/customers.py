"""Create and edit customers of a channel. For tills, integrators and the command line.

    with open_channel(load_settings(), "houston") as houston:
        ada = create_customer(houston, first_name="Ada", last_name="Lovelace", email="ada@example.com")
        print(ada.display_number)                                     # Pending sync
        edit_customer(houston, ada.customer_id, phone="713 555 0100")

Neither Kafka nor headquarters is needed: customer and event are written in one SQL transaction of the channel's
database, and the relay publishes the event. Input that breaks rules is rejected with every reason before anything is
written. After a crash either all or nothing of a call is written; a call that did not return may be repeated with the
same ids.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Unpack
from uuid import UUID, uuid5

import uuid_utils
from sqlalchemy import Connection

from tenten.avro.record_encoder import encode_record
from tenten.producers.outbox import customer_events, table
from tenten.producers.outbox.customer_events import OutboxEvent, OutboxSummary
from tenten.producers.outbox.folding import foldable
from tenten.producers.till import customer_change
from tenten.producers.till.caller_fields import customer_reasons
from tenten.producers.till.customer_input import CustomerFields
from tenten.producers.till.customer_merge import InputContext, merge_input
from tenten.producers.till.customer_views import (
    CustomerView,
    lock_customer,
    read_view,
    show_customer,
    tag_of,
    view_of,
)
from tenten.producers.till.database_session import AlreadyRecorded, recording, writing
from tenten.producers.till.entered_text import customer_text_violations
from tenten.producers.till.ids import invalid_id, parse_id
from tenten.producers.till.new_customer import write_new_customer
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.operators import operator_of
from tenten.producers.till.request_keys import check_repeat, is_repeat, record_key
from tenten.rules.customer_rules import reasons
from tenten.rules.definitions import definition_violations, differing, with_initial_values
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import CustomerChanged, CustomerRejected, KeyReused
from tenten.runtime.tracing import span
from tenten.schemas.messages import CustomerEvent, CustomerState, CustomerType, Reason
from tenten.sql.customer_rows import StoredCustomer


def create_customer(
    channel: OpenChannel,
    *,
    customer_id: str | None = None,
    event_id: str | None = None,
    operator: str | None = None,
    digest: str | None = None,
    **fields: Unpack[CustomerFields],
) -> CustomerView:
    """Create a customer, pending until headquarters assigns an account number. Works offline.

    Omitted fields are filled from the channel: language, currency, customer group, receipt preference and affiliations
    of its default customer, the legal entity's country, the channel's address books. The purpose of an address is
    Home for a person and Business for an organization. Pass `customer_id` or `event_id` (a GUID) as an idempotency
    key: if it already exists, nothing is written and the stored customer is returned. `operator` is the person who
    makes the change; default: that of the channel. `digest` is a text that stands for the content of the caller's
    request: a customer that was created with another one is not returned.

    Raises: `CustomerRejected` with every reason, `KeyReused`, `DatabaseRefused`; nothing is written then. `TypeError`
    for an unknown field. `NoSuchCustomer` when the call is repeated after the customer was discarded or erased.
    """
    now = datetime.now(UTC)
    customer, event = _ids(channel, customer_id, event_id, fields)
    state = merge_input(new_state(channel, fields), fields, context(channel, now))
    operator = operator_of(channel, operator)
    reject_customer(channel, None, state, operator)
    change = customer_change.created(
        channel_id=channel.name,
        customer_id=customer,
        event_id=new_id() if event is None else event,
        operator=operator,
        state=state,
        now=now,
    )
    try:
        with span("create", channel=channel.name), recording(channel):
            write_new_customer(channel, change, now, digest)
    except AlreadyRecorded:
        check_repeat(channel, customer, digest)
        return show_customer(channel, customer)
    return view_of(change.after, OutboxSummary(1, rejected=False, reasons=()))


def _ids(
    channel: OpenChannel, customer_id: str | None, event_id: str | None, fields: CustomerFields
) -> tuple[str, str | None]:
    """The customer's id, and the event's id if the call is repeatable. Raises: `CustomerRejected`.

    The same customer created elsewhere, or with other values, is another event: it must not count as a repeat.
    """
    event = None if event_id is None else _guid(event_id, "event_id")
    if customer_id is not None:
        customer = _guid(customer_id, "customer_id")
        content = f"created\n{channel.name}\n{sorted(fields.items())}"
        return str(customer), str(uuid5(customer, content) if event is None else event)
    if event is not None:
        return str(uuid5(event, "customer")), str(event)
    return new_id(), None


def new_state(channel: OpenChannel, fields: CustomerFields) -> CustomerState:
    """The channel's default customer, of the type that the input names or implies."""
    person = bool(fields.get("first_name") or fields.get("last_name"))
    organization = bool(fields.get("organization_name"))
    implied = CustomerType.PERSON if person else CustomerType.ORGANIZATION
    state = channel.default_customer(
        fields.get("customer_type", channel.default_type if person == organization else implied)
    )
    return with_initial_values(channel.definitions, state)


def context(channel: OpenChannel, now: datetime) -> InputContext:
    """The context of input in this channel."""
    return InputContext(country=channel.country, now=now, new_id=new_id, definitions=channel.definitions)


def edit_customer(
    channel: OpenChannel,
    customer_id: str,
    *,
    event_id: str | None = None,
    operator: str | None = None,
    digest: str | None = None,
    content_tags: Collection[str] | None = None,
    **fields: Unpack[CustomerFields],
) -> CustomerView:
    """Change the given fields of a customer, pending or not. Blocks while another process changes the same customer.

    An edit that changes nothing writes nothing, unless headquarters has rejected the newest change: then all unsettled
    changes are sent again. Idempotent by `event_id`. `operator` and `digest` as in `create_customer`. With
    `content_tags`, those of the views that the caller has seen, a customer that was changed meanwhile stays as it is.

    Raises: `NoSuchCustomer`, `CustomerRejected` with every reason, `CustomerChanged`, `KeyReused`, `DatabaseRefused`;
    nothing is written then.
    """
    now = datetime.now(UTC)
    event = new_id() if event_id is None else str(_guid(event_id, "event_id"))
    operator = operator_of(channel, operator)
    try:
        with writing(channel) as connection:
            before = lock_customer(connection, customer_id)
            if event_id is not None and _is_recorded(connection, event, digest):
                return read_view(connection, before.customer_id)
            if content_tags is not None and tag_of(before.state) not in content_tags:
                raise CustomerChanged("this customer was changed meanwhile: read it again, then repeat the change")
            record_key(connection, event, digest)
            events = overlay_events_of(connection, channel, before)
            state = merge_input(before.state, fields, context(channel, now))
            change = customer_change.edited(
                channel_id=channel.name,
                event_id=event,
                operator=operator,
                before=before,
                events=events,
                state=state,
                now=now,
                folded=foldable(connection, before.customer_id, events, operator),
            )
            if customer_change.must_be_sent(change, events):
                reject_customer(channel, before.state, state, operator)
                reject_too_large(change.event)
                customer_change.write(connection, [change], now)
            return read_view(connection, before.customer_id)
    except AlreadyRecorded:
        check_repeat(channel, event, digest)
        return show_customer(channel, customer_id)


def _is_recorded(connection: Connection, event_id: str, digest: str | None) -> bool:
    """Whether this change is recorded. Raises: `KeyReused`, also where it was recorded without the key."""
    if is_repeat(connection, event_id, digest):
        return True
    is_known = bool(table.recorded_ids(connection, [event_id]))
    if is_known and digest is not None:
        raise KeyReused("this id is that of another change: nothing was written; choose another key")
    return is_known


def overlay_events_of(connection: Connection, channel: OpenChannel, customer: StoredCustomer) -> list[OutboxEvent]:
    """The overlay events of one locked customer, oldest first."""
    events = customer_events.overlay_events(connection, [customer.customer_id], channel.writers)
    return events.get(customer.customer_id, [])


def new_id() -> str:
    """A new GUID (UUIDv7): consecutive ids are adjacent in an index."""
    return str(uuid_utils.uuid7())


def _guid(text: str, field: str) -> UUID:
    guid = parse_id(text)
    if guid is None:
        raise CustomerRejected([invalid_id(field)])
    return guid


def reject_customer(
    channel: OpenChannel, before: CustomerState | None, state: CustomerState, operator: str | None
) -> None:
    """Raises: `CustomerRejected` with every rule that the customer or the operator breaks. `before`: as
    `customer_violations`.
    """
    unseen = customer_reasons(customer_text_violations(before, state), state)
    reject([*operator_violations(operator), *customer_violations(channel, before, state), *unseen])


def customer_violations(channel: OpenChannel, before: CustomerState | None, state: CustomerState) -> tuple[Reason, ...]:
    """The rules and definitions that a customer breaks; of the definitions those of what is not as it was `before`
    (None: of a new customer all).
    """
    changed = None if before is None else differing(before, state)
    violations = (*reasons(state), *definition_violations(channel.definitions, state, changed))
    return customer_reasons(violations, state)


def reject_too_large(event: CustomerEvent) -> None:
    """Raises: `CustomerRejected` if headquarters would not read the event because of its size."""
    reject(customer_events.size_violations(encode_record("CustomerEvent", event)))


def reject(violations: Sequence[Reason]) -> None:
    """Raises: `CustomerRejected` with these reasons, if there are any."""
    if violations:
        raise CustomerRejected(violations)

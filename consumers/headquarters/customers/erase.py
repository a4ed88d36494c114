"""Erase a customer at headquarters' request.

The request, with its reason, is noted in the audit before headquarters sends itself the event: the owner of the
customer's partition erases it, as it does at the request of a channel. The outcome is that of the event in the log.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import uuid_utils
from sqlalchemy import Connection, Engine, delete, exists, insert, select, text

from tenten.consumers.headquarters.customers.audit import ERASURE
from tenten.consumers.headquarters.customers.own_events import erasure_of, send_own_events
from tenten.kafka.schema_registry import publish_schemas
from tenten.rules.field_rules import Text
from tenten.rules.field_violations import violations
from tenten.rules.limits import is_guid
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import AlreadyErased, InputRejected, NoSuchCustomer, SeveralCustomers
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS, Outcome, Reason
from tenten.schemas.tables.headquarters import (
    customer_audit,
    customers,
    held_events,
    number_sequences,
    synchronization_log,
)
from tenten.sql.try_until import try_until

_WHY_RULE: Final = Text(500)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedCustomer:
    """A customer that headquarters was asked to erase, and how far that has come."""

    customer_id: str
    account_number: str | None
    """It stays used. None if headquarters had not given one."""
    event_id: str
    why: str
    operator: str | None
    outcome: str | None
    """`erased`, `rejected`, or None as long as no worker has done it."""
    erased_at: datetime | None
    reasons: tuple[dict[str, str], ...]
    """Why it was rejected."""


def find_customer(headquarters: Connection, account_or_id: str) -> str:
    """The GUID of the customer with this account number or GUID; one that is only held is found by its GUID.

    Raises: `NoSuchCustomer`; `SeveralCustomers`.
    """
    if is_guid(account_or_id):
        known = select(exists().where(customers.c.customer_id == account_or_id))
        held = select(exists().where(held_events.c.customer_id == account_or_id))
        if headquarters.scalar(known) or headquarters.scalar(held):
            return account_or_id
    else:
        entities = select(number_sequences.c.legal_entity)
        columns = select(customers.c.customer_id, customers.c.legal_entity).order_by(customers.c.legal_entity)
        numbered = columns.where(customers.c.legal_entity.in_(entities), customers.c.account_number == account_or_id)
        found = headquarters.execute(numbered).all()
        if len(found) > 1:
            of_each = ", ".join(f"{row.customer_id} of {row.legal_entity}" for row in found)
            raise SeveralCustomers(f"several customers have the account number {account_or_id}: name the id: {of_each}")
        if found:
            return str(found[0].customer_id)
    raise NoSuchCustomer(
        f"headquarters has no customer {account_or_id}: give its account number, or its id (GUID). One that a store "
        "has not sent yet is unknown here"
    )


def erase_customer(
    settings: Settings, engine: Engine, account_or_id: str, *, why: str, operator: str | None = None
) -> ErasedCustomer:
    """Ask headquarters to erase a customer everywhere, and return how far that has come; `wait_for_erasure` waits.

    Idempotent: as long as it has not been rejected the first request counts, with its reason and operator. Raises:
    `InputRejected` for a reason or an operator that is not valid; `NoSuchCustomer`, `SeveralCustomers`;
    `AlreadyErased` for a customer that was erased by others; `KafkaException` if the event could not be sent, and then
    calling it again sends it; errors of the database.
    """
    _check(why, operator)
    with engine.begin() as headquarters:
        customer_id = find_customer(headquarters, account_or_id)
        headquarters.execute(_LOCK, {"customer_id": customer_id})
        request = _request(headquarters, customer_id)
        if request is not None and request.outcome == Outcome.REJECTED.lower():
            headquarters.execute(delete(customer_audit).where(customer_audit.c.event_id == request.event_id))
            request = None
        if request is None:
            _note(headquarters, customer_id, why.strip(), operator)
            request = _request(headquarters, customer_id)
    assert request is not None  # noted above
    if request.outcome is None:
        event = erasure_of(customer_id, request.event_id, request.operator, request.asked_at)
        send_own_events(settings, engine, [event], publish_schemas(settings)["CustomerEvent"])
    return request.erased()


def wait_for_erasure(engine: Engine, asked: ErasedCustomer, seconds: float) -> ErasedCustomer:
    """Wait until the request is decided, at most this long; return its newest state. Raises: errors of the database."""
    newest = asked

    def is_done() -> bool:
        nonlocal newest
        with engine.begin() as headquarters:
            request = _request(headquarters, asked.customer_id)
        newest = newest if request is None else request.erased()
        return newest.outcome is not None

    try_until(seconds, is_done)
    return newest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A request as audit, log and customers have it."""

    customer_id: str
    event_id: str
    why: str
    operator: str | None
    asked_at: datetime
    outcome: str | None
    reasons: Any
    account_number: str | None
    erased_at: datetime | None

    def erased(self) -> ErasedCustomer:
        return ErasedCustomer(
            customer_id=self.customer_id,
            account_number=self.account_number,
            event_id=self.event_id,
            why=self.why,
            operator=self.operator,
            outcome=self.outcome,
            erased_at=self.erased_at,
            reasons=tuple(self.reasons),
        )


def _check(why: str, operator: str | None) -> None:
    broken = [*violations(_WHY_RULE, "why", why), *operator_violations(operator)]
    if not why.strip():
        broken.append(Reason(field="why", code="required", text="An erasure needs a reason; it stays in the audit."))
    if broken:
        raise InputRejected(broken)


def _note(headquarters: Connection, customer_id: str, why: str, operator: str | None) -> None:
    """Note a new request in the audit. Raises: `AlreadyErased`."""
    columns = select(customers.c.version, customers.c.erased_at).where(customers.c.customer_id == customer_id)
    customer = headquarters.execute(columns).one_or_none()
    if customer is not None and customer.erased_at is not None:
        raise AlreadyErased(f"customer {customer_id} was erased before, at {customer.erased_at:%Y-%m-%d %H:%M} UTC")
    headquarters.execute(
        insert(customer_audit).values(
            customer_id=customer_id,
            event_id=str(uuid_utils.uuid7()),
            channel_id=HEADQUARTERS,
            operator=operator,
            # An edit may come first: the worker corrects it.
            version=1 if customer is None else customer.version + 1,
            path=ERASURE,
            new_value={"why": why},
            changed_at=datetime.now(UTC),
        )
    )


def _request(headquarters: Connection, customer_id: str) -> _Request | None:
    """The request to erase this customer; None if there is none."""
    row = headquarters.execute(_REQUEST.where(customer_audit.c.customer_id == customer_id)).one_or_none()
    if row is None:
        return None
    # The customer decides: a restored database may have the erasure and not the log of the event.
    outcome = Outcome.ERASED.lower() if row.erased_at is not None else row.outcome
    return _Request(
        customer_id=customer_id,
        event_id=row.event_id,
        why=row.new_value["why"],
        operator=row.operator,
        asked_at=row.changed_at,
        outcome=outcome if outcome in _DECIDED else None,
        reasons=row.reasons if outcome == Outcome.REJECTED.lower() else (),
        account_number=row.account_number,
        erased_at=row.erased_at,
    )


_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.erase.' || :customer_id, 0))")
"""One request to erase a customer at a time."""

_DECIDED: Final = (Outcome.ERASED.lower(), Outcome.REJECTED.lower())

_REQUEST: Final = (
    select(
        customer_audit.c.event_id,
        customer_audit.c.new_value,
        customer_audit.c.operator,
        customer_audit.c.changed_at,
        synchronization_log.c.outcome,
        synchronization_log.c.reasons,
        customers.c.account_number,
        customers.c.erased_at,
    )
    .outerjoin(synchronization_log, synchronization_log.c.event_id == customer_audit.c.event_id)
    .outerjoin(customers, customers.c.customer_id == customer_audit.c.customer_id)
    .where(customer_audit.c.path == ERASURE)
)
"""The request to erase a customer, the outcome of its event, and the customer."""

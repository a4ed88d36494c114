"""Validate a transaction and append it to the outbox: shared by orders, sales and ends of day."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Column, Connection, null, text, update

from tenten.avro.wire import contract, encode
from tenten.producers.outbox import customer_events, transactions
from tenten.producers.outbox.table import PAYLOAD_BYTES_MAX
from tenten.producers.till.caller_fields import transaction_reasons
from tenten.producers.till.open_channel import OpenChannel
from tenten.rules import transaction_rules
from tenten.runtime.errors import TransactionRejected
from tenten.schemas.messages import Reason, RetailTransaction, TransactionStatus, to_avro

_TOO_LARGE: Final = Reason(
    field="lines",
    code="too_large",
    text="Customer and lines are too large for one record: remove lines, or some of the customer's addresses or "
    "contacts.",
)


def lock_days(connection: Connection, *, shared: bool) -> None:
    """Take the end-of-day lock until the transaction ends: shared while recording, exclusive while closing.

    Take it before the outbox assigns a sequence. SQLite needs no lock: a writing transaction is the only one.
    """
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.execute(text(f"SELECT {lock}(hashtextextended('tenten.days', 0))"))


def append(
    connection: Connection, channel: OpenChannel, transaction: RetailTransaction, violations: Sequence[Reason] = ()
) -> None:
    """Validate a transaction and append it to the outbox, with the customer's newest unsettled event.

    The customer's row must be locked. `violations` are reasons that are known already. Raises: `TransactionRejected`.
    """
    event = None
    if transaction.customer_id is not None:
        event = customer_events.newest_unsettled(connection, transaction.customer_id)
    if event is not None:
        transaction = replace(transaction, customer_event_id=event[0], customer_event=event[1])
    entity = channel.legal_entity_id
    definitions = {entity: channel.transaction_definitions}
    broken = transaction_rules.transaction_violations(transaction, {channel.name: entity}, definitions)
    _reject([*violations, *transaction_reasons(broken)])
    payload = encode(contract("RetailTransaction"), to_avro(transaction))
    _reject([_TOO_LARGE] if len(payload) > PAYLOAD_BYTES_MAX else [])
    transactions.append(connection, transaction, payload, datetime.now(UTC))


def reset_to_pending(connection: Connection, key: Column[str], value: str) -> None:
    """Reset the row with this key to `pending`; the reply counter is unchanged."""
    pending = {"status": TransactionStatus.PENDING, "reasons": null(), "updated_at": datetime.now(UTC)}
    connection.execute(update(key.table).where(key == value).values(pending))


def _reject(violations: Sequence[Reason]) -> None:
    if violations:
        raise TransactionRejected(violations)

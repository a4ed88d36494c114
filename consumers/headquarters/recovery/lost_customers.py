"""Erased customers and customers, from `erasures` and `customers`: the newer version counts, an erasure is final.

Every step is idempotent: what the database has already is left as it is.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Message
from sqlalchemy import ARRAY, Connection, Engine, Text, any_, bindparam, select

from tenten.avro.wire import Unreadable, WriterSchemas, contract
from tenten.consumers.headquarters.customers.audit import delete_audit
from tenten.consumers.headquarters.recovery.topic_batches import Progress, topic_batches
from tenten.kafka.records import record_position
from tenten.kafka.schema_registry import writer_schemas
from tenten.rules.limits import is_guid
from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.settings import Settings
from tenten.schemas.messages import Customer, CustomerState, Erasure, canonical, customer_from_avro, erasure_from_avro
from tenten.schemas.tables.headquarters import customers
from tenten.schemas.topics import CUSTOMERS, ERASURES, Topic
from tenten.sql.customer_rows import HEADQUARTERS_TABLES, StoredCustomer, read_customers, write_customers


@dataclass(slots=True, kw_only=True)
class LostCustomers:
    """The customers that were taken back."""

    customers: int = 0
    erased: int = 0
    conflicts: set[str] = field(default_factory=set)
    """Customers of the topic whose account number another customer of the database has; they were left out."""


def recover_customers(settings: Settings, engine: Engine, progress: Progress) -> LostCustomers:
    """Take back erasures, then customers.

    Raises: `DatabaseRefused` for a record that cannot be read; `KafkaRefused`, `KafkaException`.
    """
    lost, writers = LostCustomers(), writer_schemas(settings)
    for messages in topic_batches(settings, ERASURES, progress):
        newest = {key: message for message in messages if (key := _customer_id(message)) is not None}
        erasures = {key: _erasure(settings, writers, message) for key, message in newest.items()}
        with engine.begin() as headquarters:
            _write(headquarters, lost, {key: erasure for key, erasure in erasures.items() if erasure is not None})
    for messages in topic_batches(settings, CUSTOMERS, progress):
        newest = {key: message for message in messages if (key := _customer_id(message)) is not None}
        snapshots = {key: _snapshot(settings, writers, message) for key, message in newest.items()}
        with engine.begin() as headquarters:
            _write(headquarters, lost, snapshots)
    return lost


def _customer_id(message: Message) -> str | None:
    """The customer of a record; None for a key that belongs to no customer."""
    key = (message.key() or b"").decode(errors="replace")
    return key if is_guid(key) else None


def _erasure(settings: Settings, writers: WriterSchemas, message: Message) -> StoredCustomer | None:
    value = message.value()
    if value is None:
        return None
    try:
        erasure = erasure_from_avro(writers.decode(value, contract("Erasure")))
    except Unreadable as error:
        raise _unreadable(settings, ERASURES, message, error) from error
    return _erased(erasure)


def _erased(erasure: Erasure) -> StoredCustomer:
    return StoredCustomer(
        customer_id=erasure.customer_id,
        account_number=erasure.account_number,
        version=erasure.version,
        updated_at=erasure.erased_at,
        erased_at=erasure.erased_at,
        state=CustomerState(legal_entity=erasure.legal_entity),
    )


def _snapshot(settings: Settings, writers: WriterSchemas, message: Message) -> StoredCustomer:
    """The customer of a snapshot; for a tombstone an erased customer, whose version 0 stands for the next one."""
    value = message.value()
    if value is None:
        _, timestamp_ms = message.timestamp()
        return _erased(
            Erasure(
                customer_id=_customer_id(message) or "",
                account_number=None,
                version=0,
                legal_entity="",
                erased_at=datetime.fromtimestamp(timestamp_ms / 1000, UTC),
            )
        )
    try:
        customer: Customer = customer_from_avro(writers.decode(value, contract("Customer")))
    except Unreadable as error:
        raise _unreadable(settings, CUSTOMERS, message, error) from error
    return StoredCustomer(
        customer_id=customer.customer_id,
        account_number=customer.account_number,
        version=customer.version,
        updated_at=customer.updated_at,
        state=canonical(customer.customer),
    )


def _unreadable(settings: Settings, topic: Topic, message: Message, error: Unreadable) -> DatabaseRefused:
    partition, offset = record_position(message)
    return DatabaseRefused(
        f"record {partition}/{offset} of {settings.topic(topic)} {error.text}: upgrade headquarters, then recover again"
    )


def _write(headquarters: Connection, lost: LostCustomers, found: Mapping[str, StoredCustomer]) -> None:
    """Write those that are newer than the database."""
    before = read_customers(headquarters, HEADQUARTERS_TABLES, found, for_update=True)
    newer = [customer for stored in found.values() if (customer := _newer(stored, before.get(stored.customer_id)))]
    conflicts = _conflicts(headquarters, newer)
    lost.conflicts |= conflicts
    written = [customer for customer in newer if customer.customer_id not in conflicts]
    write_customers(headquarters, HEADQUARTERS_TABLES, written, before)
    erased = [customer.customer_id for customer in written if customer.erased]
    if erased:
        delete_audit(headquarters, erased)
    lost.erased += len(erased)
    lost.customers += len(written) - len(erased)


def _newer(found: StoredCustomer, before: StoredCustomer | None) -> StoredCustomer | None:
    """The customer as the database is to have it; None if it has it, or a newer version, already."""
    if before is None:
        return found if found.version else _with(found, version=1)
    if before.erased:
        return None
    if not found.erased:
        return found if found.version > before.version else None
    return _with(
        found,
        version=max(found.version, before.version + 1),
        account_number=found.account_number or before.account_number,
        legal_entity=found.state.legal_entity or before.state.legal_entity,
    )


def _with(
    erased: StoredCustomer, *, version: int, account_number: str | None = None, legal_entity: str = ""
) -> StoredCustomer:
    return StoredCustomer(
        customer_id=erased.customer_id,
        account_number=account_number,
        version=version,
        updated_at=erased.updated_at,
        erased_at=erased.erased_at,
        state=CustomerState(legal_entity=legal_entity),
    )


def _conflicts(headquarters: Connection, written: Iterable[StoredCustomer]) -> set[str]:
    """Those of the customers whose account number another customer has."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    conflicts: set[str] = set()
    for customer in written:
        number, entity = customer.account_number, customer.state.legal_entity
        if number is not None and owners[entity].setdefault(number, customer.customer_id) != customer.customer_id:
            conflicts.add(customer.customer_id)
    for legal_entity, by_number in owners.items():
        for row in headquarters.execute(_OWNERS, {"entity": legal_entity, "numbers": list(by_number)}):
            if row.customer_id != by_number[row.account_number]:
                conflicts.add(by_number[row.account_number])
    return conflicts


_OWNERS: Final = select(customers.c.customer_id, customers.c.account_number).where(
    customers.c.legal_entity == bindparam("entity"),
    customers.c.account_number == any_(bindparam("numbers", type_=ARRAY(Text))),
)
"""The customers that have these account numbers."""

"""The SQL transaction of a batch: number new customers, apply events, log, audit, advance the positions.

Locks are taken in this order: positions, number sequences by legal entity, customers by GUID. A batch of simple creates
alone locks the sequences after writing addresses and contacts. The logged outcome of an event is final, so a repeated
batch gets the same account numbers and the same replies.

Simple creates are bulk-inserted optimistically and rely on unique constraints; on a violation the transaction is
retried with every event handled individually.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog import get_logger

from tenten.consumers.headquarters.customers.bulk_create import (
    EncodeCreated,
    NumbersExhausted,
    create_in_bulk,
    legal_entities,
)
from tenten.consumers.headquarters.customers.classify import ClassifiedBatch, as_individual, halves
from tenten.consumers.headquarters.customers.held_events import HeldCustomers, Originals
from tenten.consumers.headquarters.customers.individual_events import CustomerAfter, IndividualEvents
from tenten.consumers.headquarters.customers.numbering import Allotment, Blocks
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.positions import StreamPositions, advance_positions
from tenten.consumers.headquarters.release_queue import enqueue_for_customers
from tenten.runtime.database_refusal import database_refusal
from tenten.runtime.error_codes import error_code, is_data_error, is_transient
from tenten.runtime.errors import DatabaseRefused, WriteConflict
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import CustomerEvent, EventKind, Reason, Reply
from tenten.schemas.tables.headquarters import ACCOUNT_NUMBERS
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_rows import HEADQUARTERS_TABLES

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronized(Generic[T]):
    """The result of one SQL transaction."""

    created: T
    """The encoded outputs of the simple creates."""
    touched: Mapping[str, CustomerAfter]
    """By customer id: the other customers whose snapshot is to be sent."""
    replies: tuple[Reply, ...]
    """The replies to the individual events, to held events that were judged, and to superseded ones, in order."""
    answered: Sequence[int]
    """The held events that can be deleted when the replies are on the topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headquarters:
    """What the transactions of a worker have in common."""

    engine: Engine
    blocks: Blocks
    channels: KnownChannels
    held: HeldCustomers


def synchronize(
    at: Headquarters,
    batch: ClassifiedBatch,
    reached: StreamPositions,
    *,
    now: datetime,
    encode: EncodeCreated[T],
    originals: Originals,
) -> list[Synchronized[T]]:
    """Write a batch to the database, in one transaction unless the database rejects data in it.

    Then the batch is halved, each half in a transaction of its own, until the event that the database rejects is
    found; the event is rejected. `encode` is called in a thread while the new customers are copied; `originals` gives
    the records of events that are held.
    Raises: transient errors; `DatabaseRefused` for any other error that no event causes, such as a missing privilege.
    """
    held = at.held.among(batch.simple_creates["customer_id"])
    if held:
        batch = as_individual(batch, held)
    run = partial(_in_one_transaction, at, now=now, encode=encode, originals=originals)
    try:
        return [run(batch, reached)]
    except (DBAPIError, psycopg.Error) as error:
        if is_transient(error):
            raise
        if not is_data_error(error):
            raise database_refusal(error, "a batch of customer events") from error
        if batch.event_count == 0:
            raise
        at.blocks.give_back()
        log.warning(
            "batch_rejected_by_database",
            events=batch.event_count,
            error=type(error).__name__,
            code=error_code(error),
        )
    if batch.event_count == 1:
        return [_reject_one(at, replace(as_individual(batch), only_one=True), run, reached)]
    again = partial(synchronize, at, now=now, encode=encode, originals=originals)
    first, second = halves(batch)
    return [*again(first, reached.not_advanced()), *again(second, reached)]


def _reject_one(
    at: Headquarters,
    batch: ClassifiedBatch,
    run: Callable[[ClassifiedBatch, StreamPositions], Synchronized[T]],
    reached: StreamPositions,
) -> Synchronized[T]:
    """Reject the event that the database does not accept: the only one of the batch, or a held one of its customer.

    Held events come first, one at a time; the event of the batch is held meanwhile.
    """
    if at.held.among(individual.event.customer_id for individual in batch.individual_events):
        try:
            return run(batch, reached)
        except (DBAPIError, psycopg.Error) as error:
            if not is_data_error(error):
                raise
            at.blocks.give_back()
    reason = Reason(field="", code="database_refused", text="Headquarters' database rejected this customer.")
    return run(replace(batch, rejection=(reason,)), reached)


def _in_one_transaction(
    at: Headquarters,
    batch: ClassifiedBatch,
    reached: StreamPositions,
    *,
    now: datetime,
    encode: EncodeCreated[T],
    originals: Originals,
) -> Synchronized[T]:
    """Run the transaction; retry it with every event individual when a simple create is not new or has no number.

    Raises: `WriteConflict` when another worker is creating one of these customers at the same time; `DatabaseRefused`
    when a new number already belongs to a customer; other errors of the database.
    """
    at.blocks.begin()
    try:
        with at.engine.begin() as headquarters:
            return _write_batch(headquarters, at, batch, reached, now=now, encode=encode, originals=originals)
    except NumbersExhausted:
        pass
    except (IntegrityError, psycopg.errors.UniqueViolation) as error:
        if not _already_exists(error):
            raise
        if batch.simple_creates.is_empty():
            raise WriteConflict("another worker is creating one of these customers") from error
    at.blocks.give_back()
    return _in_one_transaction(at, as_individual(batch), reached, now=now, encode=encode, originals=originals)


def _write_batch(
    headquarters: Connection,
    at: Headquarters,
    batch: ClassifiedBatch,
    reached: StreamPositions,
    *,
    now: datetime,
    encode: EncodeCreated[T],
    originals: Originals,
) -> Synchronized[T]:
    """The steps of the transaction, in the order in which they take locks."""
    advance_positions(headquarters, reached)
    allotment = Allotment(headquarters, at.blocks)
    individual = IndividualEvents(headquarters, at.channels, allotment, batch, at.held, originals, now)
    individual.read()
    individually_created = _individually_created(headquarters, individual.events()) & at.channels.legal_entities
    if individually_created:
        allotment.lock(individually_created | legal_entities(batch.simple_creates))
    individual.apply()
    created = create_in_bulk(headquarters, allotment, batch, now, encode)
    allotment.write()
    individual_ids = [event.event.customer_id for event in batch.individual_events]
    enqueue_for_customers(headquarters, [*batch.simple_creates["customer_id"], *individual_ids])
    failpoint("headquarters.before_sql_commit")
    return Synchronized(
        created=created,
        touched=individual.touched,
        replies=tuple(individual.log.replies),
        answered=individual.held.answered,
    )


def _individually_created(headquarters: Connection, events: Iterable[CustomerEvent]) -> set[str]:
    """The legal entities in which these events may create customers; a batch of edits alone locks no sequence.

    An event may name a legal entity that does not exist.
    """
    entities: set[str] = set()
    edited: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.customer is None:
            continue
        if event.kind is EventKind.CREATED:
            entities.add(event.customer.legal_entity)
        else:
            edited[event.customer_id].add(event.customer.legal_entity)
    if edited:
        customers = HEADQUARTERS_TABLES.customers
        existing = headquarters.execute(
            select(customers.c.customer_id).where(is_one_of(headquarters, customers.c.customer_id, edited))
        ).scalars()
        entities.update(entity for customer_id in edited.keys() - set(existing) for entity in edited[customer_id])
    return entities


def _already_exists(error: IntegrityError | psycopg.errors.UniqueViolation) -> bool:
    """True if a customer or an event already exists; False for any other violation of the database's integrity.

    Raises: `DatabaseRefused` if it is the account number that already exists.
    """
    cause = error.orig if isinstance(error, IntegrityError) else error
    if not isinstance(cause, psycopg.errors.UniqueViolation):
        return False
    if cause.diag.constraint_name == ACCOUNT_NUMBERS.name:
        raise DatabaseRefused(
            "a number sequence is behind the account numbers of existing customers: `next` in number_sequences was "
            "lowered, or customers were added by other means; set it beyond the largest account number in use"
        ) from error
    return True

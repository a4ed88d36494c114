"""One SQL transaction for a batch: log every event, create new customers with numbers, apply edits, audit, note
positions.

Locks are taken in this order: number sequences by legal entity, then customers by GUID. The logged outcome of an
event wins over a new judgement, so a batch that comes again gets the same account numbers and the same answers.

Plain events are copied in as columns without looking first: that they are new is what the unique keys say. Where the
keys say otherwise the transaction is started over, and every event is looked at.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeAlias, TypeVar

import polars as pl
import psycopg
from sqlalchemy import Connection, Engine, Row, bindparam, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog import get_logger

from tenten.consumers.headquarters.customers.classify import (
    Judged,
    LooseEvent,
    halves,
    loosened,
    other_legal_entity,
    outer_reasons,
)
from tenten.consumers.headquarters.customers.numbering import Allotment, Blocks, used_up
from tenten.consumers.headquarters.known_channels import KnownChannels
from tenten.consumers.headquarters.positions import Reached, note_positions
from tenten.consumers.headquarters.record_positions import RecordPositions
from tenten.consumers.headquarters.release_queue import note_customers
from tenten.rules.customer import apply_paths, changed_paths, value_at
from tenten.rules.customer_rules import reasons as broken_rules
from tenten.rules.limits import GUID
from tenten.runtime.errors import Contended, DatabaseRefused, is_transient
from tenten.runtime.failpoints import failpoint
from tenten.schemas.messages import (
    ROW,
    CustomerEvent,
    CustomerState,
    EventKind,
    Outcome,
    Reason,
    Reply,
    canonical,
    reasons_as_json,
)
from tenten.schemas.tables.headquarters import ACCOUNT_NUMBERS, customer_audit, synchronization_log
from tenten.sql.arrays import is_one_of
from tenten.sql.customer_frames import as_rows, copy_into, headquarters_frames
from tenten.sql.customer_rows import (
    HEADQUARTERS_TABLES,
    StoredCustomer,
    insert_customers,
    read_customers,
    write_customers,
)

log = get_logger(__name__)

_UTC: Final = pl.Datetime("us", "UTC")

T = TypeVar("T")
Use: TypeAlias = Callable[[pl.DataFrame], T]
"""Makes something of new customers: plain events with `account_number`, `version` and `updated_at`. Given none, these
columns are missing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """A customer as the batch leaves it, and the last event of the batch that concerned it."""

    customer: StoredCustomer
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronized(Generic[T]):
    """What a batch came to."""

    created: T
    """What was made of the new customers of plain events."""
    current: Mapping[str, Current]
    """By customer id: the others that the batch concerned."""
    replies: tuple[Reply, ...]
    """The answers to the loose events and to what they superseded, in order."""


def synchronize(
    engine: Engine, blocks: Blocks, known: KnownChannels, judged: Judged, reached: Reached, *, use: Use[T]
) -> list[Synchronized[T]]:
    """Bring a batch into the database; in one transaction, unless the database refuses something in it.

    `use` makes something of new customers while the database takes them in, in a thread of its own.

    Then the batch is halved until the one event is found, which is rejected; the halves are transactions of their own.
    Raises: what is transient.
    """
    try:
        return [_in_one_transaction(engine, blocks, known, judged, reached, use=use)]
    except (DBAPIError, psycopg.Error) as error:
        if is_transient(error) or judged.events == 0:
            raise
        blocks.give_back()
        log.warning("batch_refused", events=judged.events, error=type(error).__name__, code=_sqlstate(error))
    if judged.events == 1:
        refused = Reason(field="", code="database_refused", text="headquarters' database refuses this customer")
        rejected = replace(loosened(judged), refused=(refused,))
        return [_in_one_transaction(engine, blocks, known, rejected, reached, use=use)]
    first, second = halves(judged)
    return [
        *synchronize(engine, blocks, known, first, replace(reached, next_offsets={}), use=use),
        *synchronize(engine, blocks, known, second, reached, use=use),
    ]


def _in_one_transaction(
    engine: Engine, blocks: Blocks, known: KnownChannels, judged: Judged, reached: Reached, *, use: Use[T]
) -> Synchronized[T]:
    """The transaction; started over with every event loose when a plain one is not new or cannot be numbered.

    Raises: `Contended` when another worker is just creating one of these customers; `DatabaseRefused` when a number
    that is new belongs to a customer; what the database refuses otherwise.
    """
    blocks.begin()
    try:
        with engine.begin() as headquarters:
            return _synchronize(headquarters, blocks, known, judged, reached, use=use)
    except _NumbersUsedUp:
        pass
    except (IntegrityError, psycopg.errors.UniqueViolation) as error:
        if not _is_known_already(error):
            raise
        if judged.plain.is_empty():
            raise Contended("another worker is creating one of these customers") from error
    blocks.give_back()
    return _in_one_transaction(engine, blocks, known, loosened(judged), reached, use=use)


class _NumbersUsedUp(Exception):
    """A sequence has fewer numbers left than the batch has new customers."""


def _is_known_already(error: IntegrityError | psycopg.errors.UniqueViolation) -> bool:
    """Whether a customer or an event turned out to be known; False for what else breaks the integrity of the database.

    Raises: `DatabaseRefused` when it is the account number that was there already.
    """
    cause = error.orig if isinstance(error, IntegrityError) else error
    if not isinstance(cause, psycopg.errors.UniqueViolation):
        return False
    if cause.diag.constraint_name == ACCOUNT_NUMBERS.name:
        raise DatabaseRefused(
            "a number sequence is behind the account numbers that customers have: `next` in number_sequences was put "
            "back, or customers came in from elsewhere; set it beyond the largest number that is taken"
        ) from error
    return True


def _synchronize(
    headquarters: Connection, blocks: Blocks, known: KnownChannels, judged: Judged, reached: Reached, *, use: Use[T]
) -> Synchronized[T]:
    now = datetime.now(UTC)
    allotment = Allotment(headquarters, blocks, _entities_to_number(headquarters, known, judged))
    loose = _Loose(headquarters, known, allotment, judged, now)
    loose.apply()
    created = _create(headquarters, allotment, judged, now, use)
    allotment.write()
    note_customers(headquarters, [*judged.plain["customer_id"], *(one.event.customer_id for one in judged.loose)])
    note_positions(headquarters, reached)
    failpoint("headquarters.before_sql_commit")
    return Synchronized(created=created, current=loose.concerned, replies=tuple(loose.replies))


def _entities_to_number(headquarters: Connection, known: KnownChannels, judged: Judged) -> set[str]:
    """The legal entities in which the batch may have new customers; a batch of edits waits for no sequence.

    Only known ones: a text that no database takes may stand in an event instead.
    """
    entities: set[str] = set()
    if not judged.plain.is_empty():
        entities.update(judged.plain.select(pl.col("customer").struct.field("legal_entity").unique()).to_series())
    edited: dict[str, set[str]] = defaultdict(set)
    for event in (one.event for one in judged.loose):
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
        entities.update(entity for one in edited.keys() - set(existing) for entity in edited[one])
    return entities & known.legal_entities


# Plain events: columns all the way.


def _create(headquarters: Connection, allotment: Allotment, judged: Judged, now: datetime, use: Use[T]) -> T:
    """Copy the plain events in as new customers. Gives what was made of them with number, version and time.

    Raises: `psycopg.errors.UniqueViolation` when one is not new; `_NumbersUsedUp`.
    """
    plain = judged.plain
    if plain.is_empty():
        return use(plain)
    parts = []
    for (entity,), part in plain.group_by(pl.col("customer").struct.field("legal_entity"), maintain_order=True):
        numbers = allotment.take(str(entity), part.height)
        if len(numbers) < part.height:
            raise _NumbersUsedUp
        parts.append(_numbered(part, numbers, now))
    created = pl.concat(parts)
    with ThreadPoolExecutor(1, "use") as beside:
        made = beside.submit(use, created)
        _copy_new(headquarters, created.select("customer_id", "account_number", "version", "updated_at", "customer"))
        _copy_log(headquarters, _log_rows(created, judged.places, now))
        return made.result()


def _numbered(plain: pl.DataFrame, numbers: pl.Series, now: datetime) -> pl.DataFrame:
    return plain.with_columns(
        numbers.alias("account_number"),
        pl.lit(1, dtype=pl.Int64).alias("version"),
        pl.lit(now, dtype=_UTC).alias("updated_at"),
    )


def _copy_new(headquarters: Connection, customers: pl.DataFrame) -> None:
    """New customers with their addresses and contacts, in the order of their ids: two workers never wait crosswise."""
    frames = headquarters_frames(customers.sort("customer_id"))
    cursor = _cursor(headquarters)
    copy_into(cursor, "customers", frames.customers)
    copy_into(cursor, "customer_addresses", frames.addresses)
    copy_into(cursor, "customer_contacts", frames.contacts)


def _copy_log(headquarters: Connection, rows: pl.DataFrame) -> None:
    copy_into(_cursor(headquarters), "synchronization_log", as_rows(rows, synchronization_log, "postgresql"))


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """Psycopg's own cursor in the same transaction, for COPY."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # it is psycopg's
    return driver.cursor()


def _log_rows(created: pl.DataFrame, places: RecordPositions, now: datetime) -> pl.DataFrame:
    """A log row for each plain event."""
    rows = created[ROW]
    return created.select(
        "event_id",
        "customer_id",
        "channel_id",
        pl.col("kind").str.to_lowercase(),
        pl.lit(Outcome.SYNCHRONIZED.lower()).alias("outcome"),
        pl.lit("[]").alias("reasons"),
        "account_number",
        "version",
        pl.lit(0, dtype=pl.Int32).alias("repeats"),
        pl.lit(places.topic).alias("topic"),
        pl.Series("partition", places.partitions, dtype=pl.Int32).gather(rows),
        pl.Series("offset", places.offsets, dtype=pl.Int64).gather(rows),
        "occurred_at",
        pl.lit(now, dtype=_UTC).alias("received_at"),
    )


# Loose events: one by one, in the order they came.


@dataclass(frozen=True, slots=True, kw_only=True)
class _LogEntry:
    """What is or will be in the log about one event."""

    reply: Reply
    kind: str
    occurred_at: datetime
    row: int
    """Where in the batch the event that it stems from stood."""
    new: bool
    repeats: int = 0
    overturned: bool = False
    """It was logged as rejected, and a later event brought it along."""


@dataclass(slots=True)
class _Loose:
    """The loose events of a batch on their way into the database."""

    headquarters: Connection
    known: KnownChannels
    allotment: Allotment
    judged: Judged
    now: datetime
    replies: list[Reply] = field(default_factory=list)
    concerned: dict[str, Current] = field(default_factory=dict)
    entries: dict[str, _LogEntry] = field(default_factory=dict)
    customers: dict[str, StoredCustomer] = field(default_factory=dict)
    audit: list[dict[str, Any]] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)

    def apply(self) -> None:
        """Take in every loose event, then write what came of it: a fixed number of statements."""
        events = self.judged.loose
        if not events:
            return
        before = read_customers(
            self.headquarters, HEADQUARTERS_TABLES, (one.event.customer_id for one in events), for_update=True
        )
        self.customers = dict(before)
        self.entries = self._read_log(events)
        for one in events:
            self._take_in(one)
        self._write(before)

    def _take_in(self, one: LooseEvent) -> None:
        event = one.event
        logged = self.entries.get(event.event_id)
        if logged is not None and logged.reply.customer_id != event.customer_id:
            self._refuse_id(event)
            return
        if logged is not None:
            self.entries[event.event_id] = replace(logged, repeats=logged.repeats + 1)
            self.replies.append(replace(logged.reply, channel_id=event.channel_id))
            self.replies.extend(self._superseded_before(event))
            self._concern(event)
            return
        customer = self.customers.get(event.customer_id)
        reasons = (*self.judged.refused, *outer_reasons(event, self.known))
        if reasons:
            self._answer(one, Outcome.REJECTED, reasons)
        elif event.kind is EventKind.ERASED:
            self._erase(one, customer)
        elif customer is not None and customer.erased:
            self._answer(one, Outcome.ERASED)
        elif event.kind is EventKind.TOUCHED:
            self._touch(one, customer)
        else:
            self._merge(one, customer)
        self._concern(event)

    def _refuse_id(self, event: CustomerEvent) -> None:
        """The answer to an event with the id of another customer's: no repeat, and the log has no place for it."""
        text = "Another customer's event has this id: the writer must give every event an id of its own."
        reply = Reply(
            channel_id=event.channel_id,
            event_id=event.event_id,
            customer_id=event.customer_id,
            outcome=Outcome.REJECTED,
            reasons=(Reason(field="event_id", code="duplicate", text=text),),
            answered_at=self.now,
        )
        self.replies.append(reply)

    def _superseded_before(self, event: CustomerEvent) -> list[Reply]:
        """The answers to what a repeated event brought along: they may have been lost with its own."""
        entries = [self.entries[old.event_id] for old in event.supersedes if old.event_id in self.entries]
        return [
            replace(entry.reply, channel_id=event.channel_id)
            for entry in entries
            if entry.reply.outcome is Outcome.SUPERSEDED and entry.reply.customer_id == event.customer_id
        ]

    def _touch(self, one: LooseEvent, customer: StoredCustomer | None) -> None:
        if customer is None:
            unknown = Reason(
                field="customer_id", code="unknown_customer", text="headquarters does not know this customer"
            )
            self._answer(one, Outcome.REJECTED, (unknown,))
        else:
            self._answer(one, Outcome.SYNCHRONIZED)

    def _erase(self, one: LooseEvent, customer: StoredCustomer | None) -> None:
        """Keep the id and the account number, and nothing else."""
        event = one.event
        if customer is None or not customer.erased:
            entity = (
                customer.state.legal_entity
                if customer
                else self.known.legal_entity_by_channel.get(event.channel_id, "")
            )
            self.customers[event.customer_id] = StoredCustomer(
                customer_id=event.customer_id,
                account_number=customer.account_number if customer else None,
                version=customer.version + 1 if customer else 1,
                updated_at=self.now,
                erased_at=self.now,
                state=CustomerState(legal_entity=entity),
            )
            self.erased.add(event.customer_id)
            self.audit = [row for row in self.audit if row["customer_id"] != event.customer_id]
        self._answer(one, Outcome.ERASED)

    def _merge(self, one: LooseEvent, customer: StoredCustomer | None) -> None:
        """Create or edit: the event's paths, and those of superseded events that were never applied."""
        event = one.event
        assert event.customer is not None  # outer_reasons refused it otherwise
        missing = [old for old in event.supersedes if not self._is_done(old.event_id, event.customer_id)]
        paths = {*event.changed, *(path for old in missing for path in old.changed)}
        given = event.customer
        merged = canonical(given) if customer is None else apply_paths(customer.state, given, paths)
        reasons = broken_rules(merged)
        if customer is not None and customer.state.legal_entity != given.legal_entity:
            reasons = (other_legal_entity(given.legal_entity), *reasons)
        if reasons:
            self._answer(one, Outcome.REJECTED, reasons)
            return
        if customer is None:
            number = self.allotment.take_one(merged.legal_entity)
            if number is None:
                self._answer(one, Outcome.REJECTED, (used_up(merged.legal_entity),))
                return
            self._store(event, number, 1, merged)
        elif merged != customer.state:
            version = customer.version + 1
            self._audit(event, customer.state, merged, version)
            self._store(event, customer.account_number, version, merged)
        for old in missing:
            self._supersede(one, old.event_id)
        self._answer(one, Outcome.SYNCHRONIZED)

    def _is_done(self, event_id: str, customer_id: str) -> bool:
        """Whether a superseded event was applied already, or is another customer's, which nobody may bring along."""
        entry = self.entries.get(event_id)
        if entry is None:
            return False
        return entry.reply.outcome is not Outcome.REJECTED or entry.reply.customer_id != customer_id

    def _store(self, event: CustomerEvent, number: str | None, version: int, state: CustomerState) -> None:
        self.customers[event.customer_id] = StoredCustomer(
            customer_id=event.customer_id, account_number=number, version=version, updated_at=self.now, state=state
        )

    def _audit(self, event: CustomerEvent, old: CustomerState, new: CustomerState, version: int) -> None:
        self.audit.extend(
            {
                "customer_id": event.customer_id,
                "event_id": event.event_id,
                "channel_id": event.channel_id,
                "version": version,
                "path": path,
                "old_value": value_at(old, path),
                "new_value": value_at(new, path),
                "changed_at": self.now,
            }
            for path in changed_paths(old, new)
        )

    def _answer(self, one: LooseEvent, outcome: Outcome, reasons: tuple[Reason, ...] = ()) -> None:
        """Log an event with its outcome, and reply."""
        self._log(one, one.event.event_id, outcome, reasons)

    def _supersede(self, one: LooseEvent, event_id: str) -> None:
        """Log that this event brought another along; the other's own arrival will be a repeat."""
        self._log(one, event_id, Outcome.SUPERSEDED, ())

    def _log(self, one: LooseEvent, event_id: str, outcome: Outcome, reasons: tuple[Reason, ...]) -> None:
        event = one.event
        customer = self.customers.get(event.customer_id)
        reply = Reply(
            channel_id=event.channel_id,
            event_id=event_id,
            customer_id=event.customer_id,
            outcome=outcome,
            reasons=reasons,
            account_number=customer.account_number if customer else None,
            version=customer.version if customer else None,
            answered_at=self.now,
        )
        rejected = self.entries.get(event_id)
        if rejected is None:
            kind, at = event.kind.lower(), event.occurred_at
            self.entries[event_id] = _LogEntry(reply=reply, kind=kind, occurred_at=at, row=one.row, new=True)
        else:
            self.entries[event_id] = replace(rejected, reply=reply, overturned=True)
        self.replies.append(reply)

    def _concern(self, event: CustomerEvent) -> None:
        """The customer's snapshot goes out, for repeats too."""
        customer = self.customers.get(event.customer_id)
        if customer is not None:
            self.concerned[event.customer_id] = Current(customer=customer, event_id=event.event_id)

    def _read_log(self, events: Iterable[LooseEvent]) -> dict[str, _LogEntry]:
        ids = {one.event.event_id for one in events}
        ids.update(old.event_id for one in events for old in one.event.supersedes)
        # What is no GUID is in no log, and its event is refused.
        guids = sorted(filter(GUID.fullmatch, ids))
        rows = self.headquarters.execute(
            select(synchronization_log).where(is_one_of(self.headquarters, synchronization_log.c.event_id, guids))
        )
        return {row.event_id: _logged(row) for row in rows}

    def _write(self, before: Mapping[str, StoredCustomer]) -> None:
        changed = [one for key, one in self.customers.items() if before.get(key) is not one]
        new = [one for one in changed if one.customer_id not in before and not one.erased]
        # New customers are inserted, never upserted: where another worker has just created one, its number must stand.
        insert_customers(self.headquarters, HEADQUARTERS_TABLES, new)
        new_ids = {one.customer_id for one in new}
        rest = [one for one in changed if one.customer_id not in new_ids]
        write_customers(self.headquarters, HEADQUARTERS_TABLES, rest, before)
        self._write_log()
        if self.erased:
            self.headquarters.execute(
                delete(customer_audit).where(is_one_of(self.headquarters, customer_audit.c.customer_id, self.erased))
            )
        if self.audit:
            self.headquarters.execute(insert(customer_audit), self.audit)

    def _write_log(self) -> None:
        entries = self.entries.values()
        new = [self._log_row(entry) for entry in entries if entry.new]
        if new:
            self.headquarters.execute(insert(synchronization_log), new)
        overturned = [entry for entry in entries if entry.overturned and not entry.new]
        if overturned:
            self.headquarters.execute(
                update(synchronization_log)
                .where(synchronization_log.c.event_id == bindparam("of"))
                .values(outcome=bindparam("to"), account_number=bindparam("number"), version=bindparam("at_version")),
                [
                    {
                        "of": entry.reply.event_id,
                        "to": entry.reply.outcome.lower(),
                        "number": entry.reply.account_number,
                        "at_version": entry.reply.version,
                    }
                    for entry in overturned
                ],
            )
        repeated = {entry.reply.event_id: entry.repeats for entry in entries if entry.repeats and not entry.new}
        if repeated:
            self.headquarters.execute(_COUNT_REPEATS, {"ids": list(repeated), "counts": list(repeated.values())})

    def _log_row(self, entry: _LogEntry) -> dict[str, Any]:
        reply, places = entry.reply, self.judged.places
        return {
            "event_id": reply.event_id,
            "customer_id": reply.customer_id,
            "channel_id": reply.channel_id,
            "kind": entry.kind,
            "outcome": reply.outcome.lower(),
            "reasons": reasons_as_json(reply.reasons),
            "account_number": reply.account_number,
            "version": reply.version,
            "repeats": entry.repeats,
            "topic": places.topic,
            "partition": places.partitions[entry.row],
            "offset": places.offsets[entry.row],
            "occurred_at": entry.occurred_at,
            "received_at": reply.answered_at,
        }


_COUNT_REPEATS: Final = text(
    """
    UPDATE synchronization_log AS logged
    SET repeats = logged.repeats + again.count
    FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS integer[])) AS again (event_id, count)
    WHERE logged.event_id = again.event_id
    """
)
"""Count the repeats of events that were logged before; nothing else of theirs changes."""


def _logged(row: Row[Any]) -> _LogEntry:
    outcome = Outcome(row.outcome.upper())
    # The log keeps why an event was rejected at first when a later one has brought it along.
    reasons = row.reasons if outcome is Outcome.REJECTED else ()
    reply = Reply(
        channel_id=row.channel_id,
        event_id=row.event_id,
        customer_id=row.customer_id,
        outcome=outcome,
        reasons=tuple(Reason(**reason) for reason in reasons),
        account_number=row.account_number,
        version=row.version,
        answered_at=row.received_at,
    )
    return _LogEntry(reply=reply, kind=row.kind, occurred_at=row.occurred_at, row=0, new=False)


def _sqlstate(error: BaseException) -> str:
    return str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")

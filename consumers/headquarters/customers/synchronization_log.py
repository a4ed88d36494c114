"""The synchronization log: the outcome of every event, by event id. A logged outcome other than `held` is final."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import polars as pl
from sqlalchemy import JSON, Connection, Row, bindparam, case, insert, select, text, update

from tenten.rules.limits import is_guid
from tenten.rules.operator_rule import storable_operator
from tenten.schemas.messages import CustomerEvent, Outcome, Reason, Reply, reasons_as_json
from tenten.schemas.tables.headquarters import synchronization_log
from tenten.sql.arrays import is_one_of
from tenten.sql.bulk_copy import copy_into
from tenten.sql.customer_frames import as_rows
from tenten.sql.postgresql_driver import driver_cursor

FIRST_JUDGEMENT: Final = 1
"""The number of an event's first judgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """The log entry of one event, logged before or to be written."""

    reply: Reply
    kind: str
    operator: str | None
    occurred_at: datetime
    new: bool
    content_hash: int | None = None
    """None if the content of the event never arrived, or an earlier release has logged it."""
    repeats: int = 0
    """The repeats in this batch."""
    conflicts: int = 0
    """In this batch: events with this id that are not this event."""
    conflicts_before: int = 0
    overturned: bool = False
    """It was logged as rejected or held, and has another outcome now, or other reasons."""


def new_entry(event: CustomerEvent, reply: Reply, content_hash: int | None) -> LogEntry:
    """The first entry of an event, or of one that this event superseded, whose operator and content are not known."""
    is_own = reply.event_id == event.event_id
    return LogEntry(
        reply=reply,
        kind=event.kind.lower(),
        operator=storable_operator(event.operator) if is_own else None,
        occurred_at=event.occurred_at,
        new=True,
        content_hash=content_hash if is_own else None,
    )


def overturned(entry: LogEntry, reply: Reply) -> LogEntry:
    """The entry of an event that was rejected or held before, with its new reply."""
    return replace(entry, reply=reply, overturned=True)


def read_log(headquarters: Connection, event_ids: Iterable[str]) -> dict[str, LogEntry]:
    """The log entries of those of these events that were logged before, by event id."""
    # An invalid id is in no log, and its event is rejected.
    guids = sorted(filter(is_guid, event_ids))
    rows = headquarters.execute(
        select(synchronization_log).where(is_one_of(headquarters, synchronization_log.c.event_id, guids))
    )
    return {row.event_id: _entry(row) for row in rows}


def _entry(row: Row[Any]) -> LogEntry:
    outcome = Outcome(row.outcome.upper())
    # The log keeps the reasons of a rejected event that a later one has superseded; the reply no longer has them.
    reasons = row.reasons if outcome in (Outcome.REJECTED, Outcome.HELD) else ()
    reply = Reply(
        channel_id=row.channel_id,
        event_id=row.event_id,
        customer_id=row.customer_id,
        outcome=outcome,
        reasons=tuple(Reason(**reason) for reason in reasons),
        account_number=row.account_number,
        version=row.version,
        answered_at=row.received_at,
        judgement=row.judgement,
        input_partition=row.partition,
        input_offset=row.offset,
    )
    return LogEntry(
        reply=reply,
        kind=row.kind,
        operator=row.operator,
        occurred_at=row.occurred_at,
        new=False,
        content_hash=row.content_hash,
        conflicts_before=row.conflicts,
    )


def write_log(headquarters: Connection, entries: Sequence[LogEntry], topic: str) -> None:
    """Insert the new entries, update the overturned ones, and add repeats and conflicts of the others."""
    new = [_log_row(entry, topic) for entry in entries if entry.new]
    if new:
        headquarters.execute(insert(synchronization_log), new)
    overturned = [entry.reply for entry in entries if entry.overturned and not entry.new]
    if overturned:
        headquarters.execute(
            update(synchronization_log)
            .where(synchronization_log.c.event_id == bindparam("of"))
            .values(
                outcome=bindparam("to"),
                # The reasons of a rejected event that was superseded stay.
                reasons=case(
                    (synchronization_log.c.outcome == Outcome.HELD.lower(), bindparam("why", type_=JSON)),
                    else_=synchronization_log.c.reasons,
                ),
                account_number=bindparam("number"),
                version=bindparam("at_version"),
                judgement=bindparam("number_of_judgement"),
            ),
            [
                {
                    "of": reply.event_id,
                    "to": reply.outcome.lower(),
                    "why": reasons_as_json(reply.reasons),
                    "number": reply.account_number,
                    "at_version": reply.version,
                    "number_of_judgement": reply.judgement,
                }
                for reply in overturned
            ],
        )
    repeated = [entry for entry in entries if (entry.repeats or entry.conflicts) and not entry.new]
    if repeated:
        headquarters.execute(
            _COUNT_REPEATS,
            {
                "ids": [entry.reply.event_id for entry in repeated],
                "repeats": [entry.repeats for entry in repeated],
                "conflicts": [entry.conflicts for entry in repeated],
                "hashes": [entry.content_hash for entry in repeated],
            },
        )


_COUNT_REPEATS: Final = text(
    """
    UPDATE synchronization_log AS logged
    SET repeats = logged.repeats + again.repeats, conflicts = logged.conflicts + again.conflicts,
        content_hash = coalesce(logged.content_hash, again.content_hash)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:repeats AS integer[]), CAST(:conflicts AS integer[]), CAST(:hashes AS bigint[])
    ) AS again (event_id, repeats, conflicts, content_hash)
    WHERE logged.event_id = again.event_id
    """
)
"""Add repeats and conflicts of events that were logged before; their other columns stay. A superseded event whose
content arrives late gets its hash.
"""


def _log_row(entry: LogEntry, topic: str) -> Mapping[str, Any]:
    reply = entry.reply
    return {
        "event_id": reply.event_id,
        "customer_id": reply.customer_id,
        "channel_id": reply.channel_id,
        "kind": entry.kind,
        "outcome": reply.outcome.lower(),
        "reasons": reasons_as_json(reply.reasons),
        "account_number": reply.account_number,
        "version": reply.version,
        "operator": entry.operator,
        "repeats": entry.repeats,
        "judgement": reply.judgement,
        "content_hash": entry.content_hash,
        "conflicts": entry.conflicts,
        "topic": topic,
        "partition": reply.input_partition,
        "offset": reply.input_offset,
        "occurred_at": entry.occurred_at,
        "received_at": reply.answered_at,
    }


def copy_log(headquarters: Connection, created: pl.DataFrame, topic: str, now: datetime) -> None:
    """Log simple creates as synchronized. Raises: `psycopg.errors.UniqueViolation` when an event is already logged."""
    entries = created.select(
        "event_id",
        "customer_id",
        "channel_id",
        pl.col("kind").str.to_lowercase(),
        pl.lit(Outcome.SYNCHRONIZED.lower()).alias("outcome"),
        pl.lit("[]").alias("reasons"),
        "account_number",
        "version",
        "operator",
        pl.lit(0, dtype=pl.Int32).alias("repeats"),
        pl.lit(FIRST_JUDGEMENT, dtype=pl.Int32).alias("judgement"),
        "content_hash",
        pl.lit(0, dtype=pl.Int32).alias("conflicts"),
        pl.lit(topic).alias("topic"),
        pl.col("input_partition").alias("partition"),
        pl.col("input_offset").alias("offset"),
        "occurred_at",
        pl.lit(now, dtype=pl.Datetime("us", "UTC")).alias("received_at"),
    )
    copy_into(driver_cursor(headquarters), "synchronization_log", as_rows(entries, synchronization_log, "postgresql"))

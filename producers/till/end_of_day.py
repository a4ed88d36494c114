"""Ends of day of a channel: close a business date, show and list ends of day, send a rejected one again.

An end of day lists the cash-and-carry sales of its date that no earlier one lists, and carries their control totals.
Recording takes the end-of-day lock shared, closing takes it exclusively: an end of day lists every sale of its date
that precedes it in the outbox, and no sale is listed twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, insert, select, tuple_, update

from tenten.producers.outbox.table import delete_row
from tenten.producers.till.caller_fields import transaction_reasons
from tenten.producers.till.customers import new_id
from tenten.producers.till.database_session import reading, writing
from tenten.producers.till.ids import normal_ids
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.operators import operator_of
from tenten.producers.till.transaction_append import append, lock_days, reset_to_pending
from tenten.producers.till.transaction_draft import today
from tenten.producers.till.transaction_views import LIMIT_MAX, payments_of
from tenten.rules.transaction_content import totals_as_json
from tenten.rules.transaction_rules import LISTED_MAX, control_totals
from tenten.runtime.errors import NoSuchTransaction
from tenten.schemas.messages import (
    ControlTotal,
    Reason,
    RetailTransaction,
    TransactionKind,
    TransactionStatus,
    reasons_from_json,
)
from tenten.schemas.tables.channel import end_of_days, transactions
from tenten.sql.arrays import is_one_of

_NEWEST_FIRST = (
    end_of_days.c.business_date.desc(),
    end_of_days.c.closed_at.desc(),
    end_of_days.c.end_of_day_id.desc(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOfDayView:
    """An end of day with headquarters' newest reply."""

    end_of_day_id: str
    business_date: date
    transactions: int
    """The number of cash-and-carry sales that it lists."""
    control_totals: tuple[ControlTotal, ...]
    status: TransactionStatus
    reasons: tuple[Reason, ...]
    """Why headquarters has rejected it, or what its statement waits for; fields are named as in the input."""
    operator: str | None
    """The person who closed the date."""
    closed_at: datetime
    updated_at: datetime


def close_day(
    channel: OpenChannel, business_date: date | None = None, *, operator: str | None = None
) -> list[EndOfDayView]:
    """Close a business date; default: today in the channel's time zone. Works offline.

    `operator` is the person who closes it; default: that of the channel.

    Returns a new end of day with the sales recorded since the last one, or several if there are more sales than one
    may list; without such sales, nothing is written and the last end of day is returned. The end of day of a date
    without any sale is empty. Orders are not listed: they become sales orders.
    Blocks until the recordings in progress are committed. Raises: `TransactionRejected`, `DatabaseRefused`.
    """
    business_date = today(channel) if business_date is None else business_date
    operator = operator_of(channel, operator)
    with writing(channel) as connection:
        lock_days(connection, shared=False)
        sales = _unlisted(connection, business_date)
        last = _read_days(connection, business_date, 1)
        if last and not sales:
            return last
        all_accepted = all(day.status in _ACCEPTED for day in _read_days(connection, business_date, LIMIT_MAX))
        parts = [sales[start : start + LISTED_MAX] for start in range(0, max(1, len(sales)), LISTED_MAX)]
        return [
            _close(connection, channel, business_date, part, operator, complete=all_accepted and part is parts[-1])
            for part in parts
        ]


_ACCEPTED: Final = (TransactionStatus.WAITING, TransactionStatus.BLOCKED, TransactionStatus.POSTED)
"""Statuses of accepted ends of day; any other may still be rejected and sent again."""


def _unlisted(connection: Connection, business_date: date) -> Sequence[RowMapping]:
    """The sales that no end of day of this date lists, locked in settlement's order, by id."""
    query = (
        select(transactions.c.transaction_id, transactions.c.currency, transactions.c.content)
        .where(
            transactions.c.business_date == business_date,
            transactions.c.kind == TransactionKind.CASH_AND_CARRY.lower(),
            transactions.c.end_of_day_id.is_(None),
        )
        .order_by(transactions.c.transaction_id)
        .with_for_update()
    )
    return connection.execute(query).mappings().all()


def _close(
    connection: Connection,
    channel: OpenChannel,
    business_date: date,
    sales: Sequence[RowMapping],
    operator: str | None,
    *,
    complete: bool,
) -> EndOfDayView:
    """Write one end of day that lists these sales."""
    now = datetime.now(UTC)
    totals = control_totals((sale["currency"], payments_of(sale["content"])) for sale in sales)
    end = RetailTransaction(
        channel_id=channel.name,
        transaction_id=new_id(),
        kind=TransactionKind.END_OF_DAY,
        occurred_at=now,
        business_date=business_date,
        legal_entity=channel.legal_entity_id,
        listed=tuple(sale["transaction_id"] for sale in sales),
        control_totals=totals,
        complete=complete,
        operator=operator,
    )
    append(connection, channel, end)
    row: dict[str, Any] = {
        "end_of_day_id": end.transaction_id,
        "business_date": business_date,
        "transactions": len(sales),
        "control_totals": totals_as_json(totals),
        "status": TransactionStatus.PENDING,
        "answer": 0,
        "operator": operator,
        "closed_at": now,
        "updated_at": now,
    }
    connection.execute(insert(end_of_days), row)
    listed = is_one_of(connection, transactions.c.transaction_id, end.listed)
    connection.execute(update(transactions).where(listed).values(end_of_day_id=end.transaction_id))
    return _view({**row, "reasons": None})


def show_day(channel: OpenChannel, business_date: date | None = None) -> list[EndOfDayView]:
    """The ends of day of a business date (default: today), the newest first; empty while the date is open.

    Raises: `DatabaseRefused`.
    """
    business_date = today(channel) if business_date is None else business_date
    with reading(channel) as connection:
        return _read_days(connection, business_date, LIMIT_MAX)


def list_days(channel: OpenChannel, limit: int = 50, after: str | None = None) -> list[EndOfDayView]:
    """The ends of day of all dates, the newest first, at most `limit` (and at most 1,000); `after`: those that follow
    the end of day with this id.

    Raises: `DatabaseRefused`.
    """
    query = select(end_of_days).order_by(*_NEWEST_FIRST).limit(max(0, min(limit, LIMIT_MAX)))
    if after is not None:
        place = [end_of_days.c[name] for name in ("business_date", "closed_at", "end_of_day_id")]
        last = select(*place).where(end_of_days.c.end_of_day_id.in_(normal_ids(after)))
        query = query.where(tuple_(*place) < last.scalar_subquery())
    with reading(channel) as connection:
        return [_view(row) for row in connection.execute(query).mappings()]


def resend_day(channel: OpenChannel, end_of_day_id: str) -> EndOfDayView:
    """Send a rejected end of day again with the same list and operator; one in another state is returned unchanged.

    Raises: `NoSuchTransaction`, `TransactionRejected`, `DatabaseRefused`.
    """
    by_id = select(end_of_days).where(end_of_days.c.end_of_day_id.in_(normal_ids(end_of_day_id)))
    with writing(channel) as connection:
        lock_days(connection, shared=True)
        for row in connection.execute(by_id.with_for_update()).mappings():
            if row["status"] == TransactionStatus.REJECTED:
                delete_row(connection, row["end_of_day_id"])
                append(connection, channel, _as_closed(connection, channel, row))
                reset_to_pending(connection, end_of_days.c.end_of_day_id, row["end_of_day_id"])
        for row in connection.execute(by_id).mappings():
            return _view(row)
    raise NoSuchTransaction(f"there is no end of day {end_of_day_id} in this channel")


def _as_closed(connection: Connection, channel: OpenChannel, row: RowMapping) -> RetailTransaction:
    listed = (
        select(transactions.c.transaction_id)
        .where(transactions.c.business_date == row["business_date"])
        .where(transactions.c.end_of_day_id == row["end_of_day_id"])
        .order_by(transactions.c.transaction_id)
    )
    return RetailTransaction(
        channel_id=channel.name,
        transaction_id=row["end_of_day_id"],
        kind=TransactionKind.END_OF_DAY,
        occurred_at=row["closed_at"],
        business_date=row["business_date"],
        legal_entity=channel.legal_entity_id,
        listed=tuple(connection.scalars(listed)),
        control_totals=_totals(row["control_totals"]),
        # Other ends of day of the date may have been closed meanwhile.
        complete=False,
        operator=row["operator"],
    )


def _read_days(connection: Connection, business_date: date, limit: int) -> list[EndOfDayView]:
    query = select(end_of_days).where(end_of_days.c.business_date == business_date)
    query = query.order_by(*_NEWEST_FIRST).limit(limit)
    return [_view(row) for row in connection.execute(query).mappings()]


def _view(row: Mapping[str, Any] | RowMapping) -> EndOfDayView:
    return EndOfDayView(
        end_of_day_id=row["end_of_day_id"],
        business_date=row["business_date"],
        transactions=row["transactions"],
        control_totals=_totals(row["control_totals"]),
        status=TransactionStatus(row["status"]),
        reasons=transaction_reasons(reasons_from_json(row["reasons"])),
        operator=row["operator"],
        closed_at=row["closed_at"],
        updated_at=row["updated_at"],
    )


def _totals(stored: Sequence[Mapping[str, str]]) -> tuple[ControlTotal, ...]:
    return tuple(
        ControlTotal(
            currency=total["currency"], payment_method=total["payment_method"], amount=Decimal(total["amount"])
        )
        for total in stored
    )

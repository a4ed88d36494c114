"""Ends of day of a channel: close a business date, show and list what was closed, send a rejected one again.

An end of day lists the cash-and-carry of its date that no earlier one lists, and carries their control totals.
Recording holds the days open, closing holds them shut: so in the order of the outbox everything that comes before an
end of day of its date is listed by it, and nothing is listed twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, insert, select, update

from tenten.producers import outbox
from tenten.producers.till.customers import new_id, reading, writing
from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.transaction_views import LIMIT_MAX, normal_ids, payments_of
from tenten.producers.till.transactions import append, lock_days, pending_again, today
from tenten.rules.transaction_rules import LISTED_MAX, control_totals, totals_as_json
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
    """An end of day as the channel has it, with headquarters' newest answer."""

    end_of_day_id: str
    business_date: date
    transactions: int
    """How many cash-and-carry transactions it lists."""
    control_totals: tuple[ControlTotal, ...]
    status: TransactionStatus
    reasons: tuple[Reason, ...]
    """Why headquarters has rejected it, or what its statement waits for."""
    closed_at: datetime
    updated_at: datetime


def close_day(channel: OpenChannel, business_date: date | None = None) -> list[EndOfDayView]:
    """Close a business date, unless said otherwise today's in the channel's time zone. Needs no line to anywhere.

    What was recorded since it was closed last goes into another end of day; where nothing was, nothing is written and
    the last one is given. One, or several when there are more transactions than one may list; a date without any
    sale has an empty one. Orders are not listed: they become sales orders.
    Blocks until the recordings under way are done. Raises: `TransactionRejected`, `DatabaseRefused`.
    """
    business_date = today(channel) if business_date is None else business_date
    with writing(channel) as connection:
        lock_days(connection, shared=False)
        sales = _unlisted(connection, business_date)
        last = _read_days(connection, business_date, 1)
        if last and not sales:
            return last
        taken_in = all(one.status in _TAKEN_IN for one in _read_days(connection, business_date, LIMIT_MAX))
        parts = [sales[at : at + LISTED_MAX] for at in range(0, max(1, len(sales)), LISTED_MAX)]
        return [
            _close(connection, channel, business_date, part, complete=taken_in and part is parts[-1]) for part in parts
        ]


_TAKEN_IN: Final = (TransactionStatus.WAITING, TransactionStatus.BLOCKED, TransactionStatus.POSTED)
"""What headquarters has for certain: the list of any other may still be rejected, and come later."""


def _unlisted(connection: Connection, business_date: date) -> Sequence[RowMapping]:
    """What no end of day of this date lists, locked in the order of the ids, as settlement does."""
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
    connection: Connection, channel: OpenChannel, business_date: date, sales: Sequence[RowMapping], *, complete: bool
) -> EndOfDayView:
    """Write one end of day that lists these."""
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
    )
    append(connection, channel, end)
    row: dict[str, Any] = {
        "end_of_day_id": end.transaction_id,
        "business_date": business_date,
        "transactions": len(sales),
        "control_totals": totals_as_json(totals),
        "status": TransactionStatus.PENDING,
        "answer": 0,
        "closed_at": now,
        "updated_at": now,
    }
    connection.execute(insert(end_of_days), row)
    listed = is_one_of(connection, transactions.c.transaction_id, end.listed)
    connection.execute(update(transactions).where(listed).values(end_of_day_id=end.transaction_id))
    return _view({**row, "reasons": None})


def show_day(channel: OpenChannel, business_date: date | None = None) -> list[EndOfDayView]:
    """The ends of day of a business date, unless said otherwise today's, the newest first; none while it is open.

    Raises: `DatabaseRefused`.
    """
    business_date = today(channel) if business_date is None else business_date
    with reading(channel) as connection:
        return _read_days(connection, business_date, LIMIT_MAX)


def list_days(channel: OpenChannel, limit: int = 50) -> list[EndOfDayView]:
    """The ends of day of every date, the newest first, at most `limit` (and 1,000). Raises: `DatabaseRefused`."""
    with reading(channel) as connection:
        return _read_days(connection, None, max(0, min(limit, LIMIT_MAX)))


def resend_day(channel: OpenChannel, end_of_day_id: str) -> EndOfDayView:
    """Send a rejected end of day once more, listing what it listed; show any other as it is.

    Raises: `NoSuchTransaction`, `TransactionRejected`, `DatabaseRefused`.
    """
    chosen = select(end_of_days).where(end_of_days.c.end_of_day_id.in_(normal_ids(end_of_day_id)))
    with writing(channel) as connection:
        lock_days(connection, shared=True)
        for row in connection.execute(chosen.with_for_update()).mappings():
            if row["status"] == TransactionStatus.REJECTED:
                outbox.take_out(connection, row["end_of_day_id"])
                append(connection, channel, _as_it_was(connection, channel, row))
                pending_again(connection, end_of_days.c.end_of_day_id, row["end_of_day_id"])
        for row in connection.execute(chosen).mappings():
            return _view(row)
    raise NoSuchTransaction(f"there is no end of day {end_of_day_id} in this channel")


def _as_it_was(connection: Connection, channel: OpenChannel, row: RowMapping) -> RetailTransaction:
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
        # Others may have been closed meanwhile.
        complete=False,
    )


def _read_days(connection: Connection, business_date: date | None, limit: int) -> list[EndOfDayView]:
    query = select(end_of_days).order_by(*_NEWEST_FIRST).limit(limit)
    if business_date is not None:
        query = query.where(end_of_days.c.business_date == business_date)
    return [_view(row) for row in connection.execute(query).mappings()]


def _view(row: Mapping[str, Any] | RowMapping) -> EndOfDayView:
    return EndOfDayView(
        end_of_day_id=row["end_of_day_id"],
        business_date=row["business_date"],
        transactions=row["transactions"],
        control_totals=_totals(row["control_totals"]),
        status=TransactionStatus(row["status"]),
        reasons=reasons_from_json(row["reasons"]),
        closed_at=row["closed_at"],
        updated_at=row["updated_at"],
    )


def _totals(stored: Sequence[Mapping[str, str]]) -> tuple[ControlTotal, ...]:
    return tuple(
        ControlTotal(currency=one["currency"], payment_method=one["payment_method"], amount=Decimal(one["amount"]))
        for one in stored
    )

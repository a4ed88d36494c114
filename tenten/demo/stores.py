"""The demonstration's queries of the databases: the state of each store, and the final checks of customers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import quantiles
from typing import Final

from sqlalchemy import Engine, distinct, func, select

from tenten.producers.outbox.table import CUSTOMER
from tenten.rules.number_sequence import number_format
from tenten.schemas.messages import EventKind, TransactionStatus
from tenten.schemas.tables import channel, headquarters
from tenten.sql.engine import consistent_view

RECENT_EVENTS: Final = 300
"""Number of a store's newest settled events that the latency is computed from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The state of a store."""

    created: int
    """Customers registered in this store."""
    pending: int
    customers: int
    """Customers in its database, from every store, with an account number."""
    p50_ms: float | None
    """From a create's commit to its reply in the store's database, of the newest creates; None before the first."""
    p99_ms: float | None
    sales: int
    orders: int
    waiting: int
    """Sales and orders that are not synchronized in the store."""
    day: str
    """Status of its newest end of day; empty while no day is closed."""
    open: int
    """What still has to happen: customers without a number, changes without a reply, sales and orders not
    synchronized, days not posted.
    """


def standing(store: Engine, since: datetime) -> Standing:
    """The state of the store; the latency of customers' events made after `since`."""
    outbox, customers = channel.outbox, channel.customers
    with consistent_view(store) as connection:
        created = connection.scalar(
            select(func.count(distinct(outbox.c.aggregateid))).where(outbox.c.type == EventKind.CREATED.type_name)
        )
        total, numbered = connection.execute(select(func.count(), func.count(customers.c.account_number))).one()
        recent = connection.execute(
            select(outbox.c.created_at, outbox.c.settled_at)
            .where(outbox.c.created_at > since, outbox.c.settled_at.is_not(None), outbox.c.aggregatetype == CUSTOMER)
            .order_by(outbox.c.sequence.desc())
            .limit(RECENT_EVENTS)
        ).all()
        unsettled = connection.scalar(select(func.count()).select_from(outbox).where(outbox.c.settled_at.is_(None)))
        sold = {row.kind: row for row in connection.execute(_SOLD)}
        days = connection.scalars(select(channel.end_of_days.c.status).order_by(channel.end_of_days.c.closed_at)).all()
    waits = [(row.settled_at - row.created_at).total_seconds() * 1000 for row in recent]
    waiting = sum(row.waiting for row in sold.values())
    percentiles = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else None
    return Standing(
        created=created or 0,
        pending=total - numbered,
        customers=numbered,
        p50_ms=percentiles[49] if percentiles else None,
        p99_ms=percentiles[98] if percentiles else None,
        sales=sold["cash_and_carry"].made if "cash_and_carry" in sold else 0,
        orders=sold["order"].made if "order" in sold else 0,
        waiting=waiting,
        day=days[-1] if days else "",
        open=total - numbered + (unsettled or 0) + waiting + sum(status != TransactionStatus.POSTED for status in days),
    )


_SOLD: Final = select(
    channel.transactions.c.kind,
    func.count().label("made"),
    func.count().filter(channel.transactions.c.status != TransactionStatus.SYNCHRONIZED).label("waiting"),
).group_by(channel.transactions.c.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A line of the summary: the check, its result, and the value found."""

    text: str
    holds: bool
    found: str


def checks(expected: int, account_number_format: str, hq: Engine, stores: Mapping[str, Engine]) -> Sequence[Check]:
    """The checks of customers, once everything has arrived. `expected`: the number of customers created."""
    made = set().union(*(_made_in(store) for store in stores.values()))
    with consistent_view(hq) as connection:
        rows = connection.execute(select(headquarters.customers.c.customer_id, headquarters.customers.c.account_number))
        numbers = {row.customer_id: row.account_number for row in rows}
    distinct_numbers = set(numbers.values())
    shape = number_format(account_number_format)
    wanted = {shape.account_number(number) for number in range(1, len(numbers) + 1)}
    return [
        Check(text="every customer that was made is known", holds=len(made) == expected, found=f"{len(made):,}"),
        Check(text="headquarters has numbered exactly these", holds=numbers.keys() == made, found=f"{len(numbers):,}"),
        Check(
            text="each account number once",
            holds=len(distinct_numbers) == len(numbers),
            found=f"{len(distinct_numbers):,}",
        ),
        Check(text="no gap in the sequence", holds=distinct_numbers == wanted, found=f"1 to {len(numbers):,}"),
        *(_complete(name, store, numbers) for name, store in stores.items()),
        Check(text="more than 10,000 customers", holds=len(numbers) > 10_000, found=f"{len(numbers):,}"),
    ]


def _made_in(store: Engine) -> set[str]:
    outbox = channel.outbox
    with consistent_view(store) as connection:
        return set(connection.scalars(select(outbox.c.aggregateid).where(outbox.c.type == EventKind.CREATED.type_name)))


def _complete(name: str, store: Engine, numbers: Mapping[str, str]) -> Check:
    with consistent_view(store) as connection:
        rows = connection.execute(select(channel.customers.c.customer_id, channel.customers.c.account_number))
        here = {row.customer_id: row.account_number for row in rows}
    same = sum(1 for customer_id, number in numbers.items() if here.get(customer_id) == number)
    return Check(
        text=f"{name} has every customer with that number, and no other",
        holds=here == dict(numbers),
        found=f"{same:,}",
    )

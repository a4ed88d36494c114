"""What the demonstration reads from the databases: where each store stands, and at the end whether all agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import quantiles
from typing import Final

from sqlalchemy import Engine, distinct, func, select

from commerce.database import consistent_view
from commerce.number_sequence import number_format
from schemas import channel, headquarters

RECENT_EVENTS: Final = 300
"""How many of a store's newest settled events the latency is taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a store stands."""

    created: int
    """Customers registered in this store."""
    pending: int
    customers: int
    """Customers in its database, from every store, with an account number."""
    p50_ms: float | None
    """From a create's commit to its answer in the store's database, of the newest ones; None before the first."""
    p99_ms: float | None


def standing(store: Engine, since: datetime) -> Standing:
    """Where the store stands; the latency of events made after `since`."""
    outbox, customers = channel.outbox, channel.customers
    with consistent_view(store) as connection:
        created = connection.scalar(
            select(func.count(distinct(outbox.c.aggregateid))).where(outbox.c.type == "CustomerCreated")
        )
        total, numbered = connection.execute(select(func.count(), func.count(customers.c.account_number))).one()
        recent = connection.execute(
            select(outbox.c.created_at, outbox.c.settled_at)
            .where(outbox.c.created_at > since, outbox.c.settled_at.is_not(None))
            .order_by(outbox.c.sequence.desc())
            .limit(RECENT_EVENTS)
        ).all()
    waits = [(row.settled_at - row.created_at).total_seconds() * 1000 for row in recent]
    percentiles = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else None
    return Standing(
        created=created or 0,
        pending=total - numbered,
        customers=numbered,
        p50_ms=percentiles[49] if percentiles else None,
        p99_ms=percentiles[98] if percentiles else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the summary: what must hold, whether it does, and what was found."""

    text: str
    holds: bool
    found: str


def checks(expected: int, account_number_format: str, hq: Engine, stores: Mapping[str, Engine]) -> Sequence[Check]:
    """Everything that must hold once the streams are at rest. `expected`: how many customers the demonstration made."""
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
        return set(connection.scalars(select(outbox.c.aggregateid).where(outbox.c.type == "CustomerCreated")))


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

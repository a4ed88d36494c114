"""O1 to O3: orders with new customers, synchronous creates, and a large statement.

Orders are measured like customers in P5, whose rate in the same run is their limit: the processes are warmed up, all
orders become visible at once, and the clock stops when all are sales orders.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import psycopg

from benchmarks.customers import CHANNELS, CUSTOMERS_A_SECOND, LEGAL_ENTITY, Record, events, guids
from benchmarks.filling import Filling
from benchmarks.headquarters import new_customers
from benchmarks.latency import CREATES_A_SECOND, P7_MS, stores
from benchmarks.measuring import Result, Run, Scale, Settings, memory_peak, percentile, rates
from benchmarks.processes import Process, tenten, wait_until
from benchmarks.servers import Servers, checkpoint
from benchmarks.stage import Stage, stage
from benchmarks.store_load import store_load
from tenten.avro.wire import contract, encode
from tenten.rules.transaction_rules import control_totals, line_amount, total_of
from tenten.schemas.messages import Payment, RetailTransaction, TransactionKind, TransactionLine, to_avro
from tenten.schemas.topics import RETAIL_TRANSACTIONS

AT_LEAST_O1: Final = 0.6
O3_MS_MAX: Final = 200.0
STATEMENT_TRANSACTIONS: Final = 10_000

_DAY: Final = date(2026, 1, 5)
_NOON: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_WARM_UP_SEED: Final = 7
_SYNC_CREATES_A_SECOND: Final = 10
"""Creates of a till for each second of a window: it takes about as long at 100 ms a create."""


def transactions(servers: Servers, scale: Scale, bars: frozenset[str]) -> Iterator[Result]:
    """O1, O2 and O3."""
    if "O1" in bars:
        yield _orders(servers, scale)
    if "O2" in bars:
        yield from _sync_creates(servers, scale)
    if "O3" in bars:
        yield _statement(servers, scale)


# O1: orders.


def _orders(servers: Servers, scale: Scale) -> Result:
    smaller = replace(scale, customers=scale.rows)
    limits, runs = [], []
    for _ in range(scale.runs):
        limits.append(new_customers(servers, smaller, processes=1, continuous=True))
        runs.append(_order_run(servers, smaller))
    settings: Settings = {"orders": smaller.customers, "lines an order": 2, "channels": len(CHANNELS)}
    return Result(
        bar="O1",
        what="orders that each bring a new customer along, until they are sales orders",
        against="the same customers alone, as in P5",
        unit="k/s",
        subject=rates(runs),
        limit=rates(limits),
        at_least=AT_LEAST_O1,
        memory_bytes=memory_peak(runs),
        settings={**settings, "processes": "headquarters run, transactions run"},
    )


def _order_run(servers: Servers, scale: Scale) -> Run:
    with stage(servers, dict.fromkeys(CHANNELS, "sqlite")) as on, ExitStack() as running:
        processes = [running.enter_context(tenten(on, *name)) for name in (("headquarters", "run"), _TRANSACTIONS)]
        _release(on, processes, orders(scale.warm_up, _WARM_UP_SEED), _NUMBERED, scale.warm_up)
        checkpoint(servers)
        both = scale.warm_up + scale.customers
        seconds = _release(on, processes, orders(scale.customers, _WARM_UP_SEED + 1), _NUMBERED, both)
        memory = sum(process.memory_peak_bytes() for process in processes)
        return Run(records=scale.customers, seconds=seconds, memory_bytes=memory)


_TRANSACTIONS: Final = ("transactions", "run")
_NUMBERED: Final = "SELECT next - 1 = %s FROM sales_order_sequences"


def orders(count: int, seed: int) -> Iterator[Record]:
    """Orders of two lines, each with the event of a new customer."""
    chance = random.Random(seed)
    for number, event in enumerate(events(count, seed=seed)):
        lines = tuple(_line(chance) for _ in range(2))
        order = RetailTransaction(
            channel_id=event.channel,
            transaction_id=_guid(number, chance),
            kind=TransactionKind.ORDER,
            occurred_at=_NOON,
            business_date=_DAY,
            legal_entity=LEGAL_ENTITY,
            customer_id=event.key.decode(),
            customer_event_id=event.event_id,
            customer_event=event.value,
            currency="USD",
            lines=lines,
        )
        yield _record(replace(order, total=total_of(order)))


def _line(chance: random.Random) -> TransactionLine:
    quantity, price = Decimal(chance.randint(1, 9)), Decimal(chance.randint(1, 99_999)) / 100
    sku = f"SKU-{chance.randrange(100_000):05d}"
    return TransactionLine(sku=sku, quantity=quantity, price=price, amount=line_amount(quantity, price, "USD"))


def _guid(number: int, chance: random.Random) -> str:
    """The id of the n-th transaction: ascending, as a till's ids are."""
    at_ms = int(_NOON.timestamp() * 1000) + number * 1000 // CUSTOMERS_A_SECOND
    return guids(at_ms, chance)[0].decode()


def _record(transaction: RetailTransaction) -> Record:
    value = encode(contract("RetailTransaction"), to_avro(transaction))
    return Record(key=transaction.channel_id.encode(), value=value, event_id=transaction.transaction_id)


def _release(on: Stage, processes: list[Process], records: Iterator[Record], done_query: str, count: int) -> float:
    """Seconds from the commit of the records until this query at headquarters returns true."""
    topic = on.settings.topic(RETAIL_TRANSACTIONS)
    filling = Filling(on.servers.bootstrap_servers, topic, records, "OrderPlaced")
    with psycopg.connect(on.settings.headquarters_database(), autocommit=True) as connection:

        def done() -> bool:
            row = connection.execute(done_query.encode(), (count,)).fetchone()
            return row is not None and bool(row[0])

        started_at = filling.release()
        return wait_until(done, processes) - started_at


# O2: synchronous creates.


def _sync_creates(servers: Servers, scale: Scale) -> Iterator[Result]:
    with store_load(servers, stores(scale)) as load:
        load.warm_up(CREATES_A_SECOND, scale.warm_up_seconds)
        limits = [load.window(CREATES_A_SECOND, scale.window_seconds) for _ in range(scale.windows)]
        subjects = [load.sync_window(_SYNC_CREATES_A_SECOND * scale.window_seconds) for _ in range(scale.windows)]
        memory = sum(process.memory_peak_bytes() for process in load.processes)
    for name, percent, at_most in (("median", 50, P7_MS[0]), ("99th percentile", 99, P7_MS[1])):
        yield Result(
            bar="O2",
            what=f"sync create, from the call to its answer, {name}",
            against="P7: the account number of a create that does not wait",
            unit="ms",
            subject=[percentile(window, percent) for window in subjects],
            limit=[percentile(window.milliseconds, percent) for window in limits],
            at_most=at_most,
            memory_bytes=memory,
            settings={
                "creates of each till": round(_SYNC_CREATES_A_SECOND * scale.window_seconds),
                "tills": f"one in each of {scale.stores} stores, one create after the other",
            },
        )


# O3: a statement.


def _statement(servers: Servers, scale: Scale) -> Result:
    posted, copied, memory = [], [], []
    for _ in range(scale.runs):
        with stage(servers, dict.fromkeys(CHANNELS, "sqlite")) as on, tenten(on, *_TRANSACTIONS) as process:
            sold = list(_sales(STATEMENT_TRANSACTIONS))
            _release(on, [process], map(_record, sold), _SYNCHRONIZED, len(sold))
            checkpoint(servers)
            posted.append(1000 * _release(on, [process], iter([_record(_end_of_day(sold))]), _POSTED, 1))
            copied.append(1000 * _insert_again(on))
            memory.append(process.memory_peak_bytes())
    return Result(
        bar="O3",
        what=f"posting a statement of {STATEMENT_TRANSACTIONS:,} transactions, from the end of day on",
        against="INSERT ... SELECT of its lines alone",
        unit="ms",
        subject=posted,
        limit=copied,
        at_most=O3_MS_MAX,
        memory_bytes=max(memory),
        settings={"transactions": STATEMENT_TRANSACTIONS},
    )


_SYNCHRONIZED: Final = "SELECT count(*) = %s FROM retail_transactions WHERE status = 'synchronized'"
_POSTED: Final = "SELECT count(*) = %s FROM statements WHERE status = 'posted'"


def _sales(count: int) -> Iterator[RetailTransaction]:
    chance = random.Random(count)
    for number in range(count):
        line = _line(chance)
        yield RetailTransaction(
            channel_id=CHANNELS[0],
            transaction_id=_guid(number, chance),
            kind=TransactionKind.CASH_AND_CARRY,
            occurred_at=_NOON,
            business_date=_DAY,
            legal_entity=LEGAL_ENTITY,
            currency="USD",
            total=line.amount,
            lines=(line,),
            payments=(Payment(method=chance.choice(("CASH", "CARD")), amount=line.amount),),
        )


def _end_of_day(sold: Sequence[RetailTransaction]) -> RetailTransaction:
    return RetailTransaction(
        channel_id=CHANNELS[0],
        transaction_id=_guid(0, random.Random(0)),
        kind=TransactionKind.END_OF_DAY,
        occurred_at=_NOON,
        business_date=_DAY,
        legal_entity=LEGAL_ENTITY,
        listed=tuple(sale.transaction_id for sale in sold),
        control_totals=control_totals((sale.currency, sale.payments) for sale in sold),
    )


def _insert_again(on: Stage) -> float:
    """Seconds of inserting the same lines into a table with the same keys."""
    with psycopg.connect(on.settings.headquarters_database(), autocommit=True) as connection:
        connection.execute("CREATE TABLE copied_lines (LIKE statement_lines INCLUDING ALL)")
        started_at = time.perf_counter()
        connection.execute("INSERT INTO copied_lines SELECT * FROM statement_lines")
        return time.perf_counter() - started_at

"""Checks that headquarters and the stores agree with the clerks' ledgers, to the cent."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, Engine, select

from tenten.demo.ledger import Ledger, Sold, Sums, in_words, paid_sums
from tenten.demo.stores import Check
from tenten.headquarters_views.statements import Statement, list_statements
from tenten.rules.number_sequence import number_format
from tenten.schemas.messages import TransactionStatus
from tenten.schemas.tables import channel
from tenten.schemas.tables.headquarters import customers, sales_orders, statement_lines, statements
from tenten.sql.engine import consistent_view

_STATEMENTS_MAX: Final = 1_000


def sold_checks(
    ledgers: Mapping[str, Ledger], sales_order_format: str, hq: Engine, stores: Mapping[str, Engine]
) -> Sequence[Check]:
    """The checks of sales and orders, once everything has arrived and every day is closed."""
    with consistent_view(hq) as connection:
        return [
            _pending(ledgers),
            *(_posted(connection, name, ledger.sales) for name, ledger in ledgers.items()),
            _each_in_one_statement(connection, ledgers),
            _each_a_sales_order(connection, ledgers),
            _ordered(connection, ledgers),
            _no_gap(connection, sales_order_format),
            *(_shown(name, stores[name], ledger) for name, ledger in ledgers.items()),
        ]


def _pending(ledgers: Mapping[str, Ledger]) -> Check:
    """Check that the demonstration had pending customers, returns and deliveries."""
    everything = [sold for ledger in ledgers.values() for sold in ledger.sold]
    pending = sum(1 for sold in everything if sold.customer_pending)
    returned = sum(1 for sold in everything if sold.returned)
    delivered = sum(1 for sold in everything if sold.delivered)
    return Check(
        text="sold to customers without an account number, with returns, with deliveries",
        holds=min(pending, returned, delivered) > 0,
        found=f"{pending:,} of {len(everything):,}; returns: {returned:,}; deliveries: {delivered:,}",
    )


def _posted(connection: Connection, name: str, sales: Sequence[Sold]) -> Check:
    posted = list_statements(connection, channel=name, status=TransactionStatus.POSTED, statements_max=_STATEMENTS_MAX)
    count = sum(statement.totals["transactions"] for statement in posted)
    sums = _posted_sums(posted)
    return Check(
        text=f"{name}'s statements add up to its sales",
        holds=count == len(sales) and sums == paid_sums(sales),
        found=f"{count:,} sales: {in_words(sums)}",
    )


def _posted_sums(posted: Sequence[Statement]) -> Sums:
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for statement in posted:
        for total in statement.totals["amounts"]:
            sums[total["currency"], total["payment_method"]] += Decimal(total["amount"])
    return sums


def _each_in_one_statement(connection: Connection, ledgers: Mapping[str, Ledger]) -> Check:
    numbers = _account_numbers(connection)
    query = (
        select(statement_lines, statements.c.channel_id)
        .join(statements, statements.c.statement_id == statement_lines.c.statement_id)
        .where(statements.c.status == TransactionStatus.POSTED)
    )
    found = [
        (row.channel_id, row.transaction_id, row.account_number, row.currency, row.total)
        for row in connection.execute(query)
    ]
    wanted = {
        (name, sale.transaction_id, numbers.get(sale.customer_id), sale.currency, sale.total)
        for name, ledger in ledgers.items()
        for sale in ledger.sales
    }
    return Check(
        text="each sale in one statement, with its customer's account number",
        holds=len(found) == len(wanted) and set(found) == wanted,
        found=f"{len(found):,}",
    )


def _each_a_sales_order(connection: Connection, ledgers: Mapping[str, Ledger]) -> Check:
    numbers = _account_numbers(connection)
    found = [
        (row.channel_id, row.transaction_id, row.customer_id, row.account_number, row.delivery_address is not None)
        for row in connection.execute(select(sales_orders))
    ]
    wanted = {
        (name, order.transaction_id, order.customer_id, numbers.get(order.customer_id), order.delivered)
        for name, ledger in ledgers.items()
        for order in ledger.orders
    }
    return Check(
        text="each order one sales order, with its customer's account number",
        holds=len(found) == len(wanted) and set(found) == wanted,
        found=f"{len(found):,}",
    )


def _account_numbers(connection: Connection) -> Mapping[str | None, str]:
    """The account numbers by customer id."""
    rows = connection.execute(select(customers.c.customer_id, customers.c.account_number))
    return {row.customer_id: row.account_number for row in rows}


def _ordered(connection: Connection, ledgers: Mapping[str, Ledger]) -> Check:
    wanted: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for name, ledger in ledgers.items():
        for order in ledger.orders:
            wanted[order.currency, name] += order.total
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in connection.execute(select(sales_orders.c.channel_id, sales_orders.c.currency, sales_orders.c.total)):
        found[row.currency, row.channel_id] += row.total
    return Check(text="sales orders add up to the orders", holds=found == wanted, found=in_words(found))


def _no_gap(connection: Connection, sales_order_format: str) -> Check:
    found = set(connection.scalars(select(sales_orders.c.sales_order)))
    shape = number_format(sales_order_format)
    wanted = {shape.account_number(number) for number in range(1, len(found) + 1)}
    return Check(text="no gap in the sales orders' numbers", holds=found == wanted, found=f"1 to {len(found):,}")


def _shown(name: str, store: Engine, ledger: Ledger) -> Check:
    """Check the store's own statuses of sales, orders and days."""
    sold, days = channel.transactions, channel.end_of_days
    with consistent_view(store) as connection:
        status = {row.transaction_id: row.status for row in connection.execute(select(sold))}
        closed = connection.scalars(select(days.c.status)).all()
    synchronized = {
        transaction_id for transaction_id, value in status.items() if value == TransactionStatus.SYNCHRONIZED
    }
    posted = [value for value in closed if value == TransactionStatus.POSTED]
    return Check(
        text=f"{name} shows all of it synchronized, and its days posted",
        holds=status.keys() == synchronized == {sold.transaction_id for sold in ledger.sold} and posted == closed != [],
        found=f"{len(synchronized):,}; days: {len(posted)}",
    )

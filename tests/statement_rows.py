"""Transactions and statements as the transactions worker stores them, inserted with plain SQL."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

DAY: Final = "2026-10-10"


def insert_transaction(
    url: str,
    status: str,
    *,
    channel: str = "houston",
    transaction_id: UUID | None = None,
    total: str = "12.50",
    account_number: str | None = None,
    operator: str | None = None,
    waited: timedelta = timedelta(0),
) -> UUID:
    """Insert a cash-and-carry sale that was received this long ago; return its id."""
    at = datetime.now(UTC) - waited
    new_id = transaction_id or uuid4()
    row: dict[str, Any] = {
        "transaction_id": new_id,
        "channel_id": channel,
        "kind": "cash_and_carry",
        "business_date": DAY,
        "legal_entity": "usrt",
        "customer_id": uuid4(),
        "account_number": account_number,
        "operator": operator,
        "status": status,
        "reasons": "[]",
        "currency": "USD",
        "total": total,
        "content": "{}",
        "answer": 0,
        "topic": "retail-transactions",
        "partition": 0,
        "offset": 0,
        "occurred_at": at,
        "received_at": at,
        "changed_at": at,
    }
    _insert(url, "retail_transactions", row)
    return new_id


def insert_statement(
    url: str,
    status: str,
    *,
    channel: str = "houston",
    day: str = DAY,
    number: int = 1,
    ago: timedelta = timedelta(0),
    reasons: list[dict[str, str]] | None = None,
    totals: dict[str, Any] | None = None,
    operator: str | None = None,
) -> UUID:
    """Insert the statement of an end of day that was received this long ago; return its id."""
    at = datetime.now(UTC) - ago
    new_id = uuid4()
    row: dict[str, Any] = {
        "statement_id": new_id,
        "channel_id": channel,
        "business_date": day,
        "number": number,
        "kind": "end_of_day",
        "status": status,
        "reasons": json.dumps(reasons or []),
        "control_totals": json.dumps([{"currency": "USD", "payment_method": "cash", "amount": "12.5"}]),
        "totals": json.dumps(totals or {}),
        "answer": 1,
        "operator": operator,
        "closed_at": at,
        "received_at": at,
        "posted_at": at if status == "posted" else None,
    }
    _insert(url, "statements", row)
    return new_id


def insert_listed(url: str, statement_id: UUID, transaction_id: UUID, *, posted_by_this_statement: bool = True) -> None:
    """Insert that a statement of houston lists a transaction."""
    row = {
        "statement_id": statement_id,
        "transaction_id": transaction_id,
        "channel_id": "houston",
        "owned": posted_by_this_statement,
    }
    _insert(url, "statement_listed", row)


def insert_line(url: str, statement_id: UUID, transaction_id: UUID, account_number: str, total: str) -> None:
    """Insert that a statement posts a transaction."""
    row = {
        "statement_id": statement_id,
        "transaction_id": transaction_id,
        "account_number": account_number,
        "currency": "USD",
        "total": total,
    }
    _insert(url, "statement_lines", row)


def _insert(url: str, table: str, row: dict[str, Any]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, row))
    values = sql.SQL(", ").join(map(sql.Placeholder, row))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), columns, values)
    with psycopg.connect(url) as connection:
        connection.execute(statement, row)

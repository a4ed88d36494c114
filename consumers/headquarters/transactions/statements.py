"""Post statements: all listed transactions must be synchronized and add up to the control totals of the channel.

Until then a statement is blocked, with every reason. The first release pass that finds no reason posts it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import JSON, Connection, Row, bindparam, text

from tenten.consumers.headquarters.transactions.end_of_day import statement_reply
from tenten.consumers.headquarters.transactions.reply_outbox import QueuedReply
from tenten.rules.customer import plain_decimal

STATEMENTS_MAX: Final = 1_000
"""Maximum number of statements in one release pass."""

NAMED_MAX: Final = 20
"""Transactions named in the reasons of one code; the others are counted."""

_TEXTS: Final = {
    "missing": "Listed by the store but not received by headquarters.",
    "misplaced": "Listed, but not a cash-and-carry sale of this store.",
    "waiting": "Waiting for its customer.",
    "blocked": "Blocked: see the reasons of the transaction.",
    "rejected": "Rejected: see the reasons of the transaction, correct it and send it again.",
}

_Sums = dict[tuple[str, str], Decimal]


@dataclass(kw_only=True)
class _Check:
    """The listed transactions of a statement: reasons against posting, and sums by currency and payment method."""

    reasons: list[dict[str, str]] = field(default_factory=list)
    count: int = 0
    """Transactions posted by this statement; not those of earlier statements."""
    posted_by_this_statement: _Sums = field(default_factory=lambda: defaultdict(Decimal))
    listed: _Sums = field(default_factory=lambda: defaultdict(Decimal))


def post_statements(headquarters: Connection, now: datetime, *, full_scan: bool) -> list[QueuedReply]:
    """Post the statements that can be posted, and block the others with their reasons; return a reply for each change.

    Without a full scan only new statements are checked: when every store has closed its day and waits for customers,
    many others are blocked. Takes a few SQL statements, and one for each statement that has changed.
    """
    statuses = ["waiting", "blocked"] if full_scan else ["waiting"]
    unposted = headquarters.execute(_UNPOSTED, {"statuses": statuses, "rows_max": STATEMENTS_MAX}).all()
    if not unposted:
        return []
    checks = {row.statement_id: _Check() for row in unposted}
    for row in headquarters.execute(_NOT_READY, {"ids": list(checks), "named_max": NAMED_MAX}):
        checks[row.statement_id].reasons.extend(_not_ready(row))
    complete = {"ids": [statement_id for statement_id, check in checks.items() if not check.reasons]}
    for row in headquarters.execute(_COUNTS, complete):
        checks[row.statement_id].count = row.how_many
    for row in headquarters.execute(_SUMS, complete):
        checks[row.statement_id].listed[row.currency, row.method] += row.amount
        if row.owned:
            checks[row.statement_id].posted_by_this_statement[row.currency, row.method] += row.amount
    for row in unposted:
        check = checks[row.statement_id]
        if row.control_totals is not None and not check.reasons:
            check.reasons.extend(_differences(row.control_totals, check.listed))
    posted = [statement_id for statement_id, check in checks.items() if not check.reasons]
    headquarters.execute(_POST_LINES, {"ids": posted})
    changes = [
        _change(row, checks[row.statement_id], now) for row in unposted if _has_changed(row, checks[row.statement_id])
    ]
    return [statement_reply(row) for change in changes for row in headquarters.execute(_CHANGE, change)]


def _not_ready(row: Row[Any]) -> list[dict[str, str]]:
    """Reasons for the transactions with one code: the first ones by id, the others counted."""
    reasons = [{"field": key, "code": row.standing, "text": _TEXTS[row.standing]} for key in row.first]
    more = row.how_many - len(row.first)
    if more:
        reasons.append({"field": "", "code": row.standing, "text": f"{more} more transactions have the same problem."})
    return reasons


def _differences(control: Sequence[Mapping[str, str]], sums: _Sums) -> list[dict[str, str]]:
    """A reason for each control total of the channel that differs from the sum at headquarters."""
    totals = {(total["currency"], total["payment_method"]): Decimal(total["amount"]) for total in control}
    return [
        {
            "field": f"control_totals/{currency}/{method}",
            "code": "does_not_add_up",
            "text": f"The store reports {plain_decimal(totals.get((currency, method), Decimal(0)))}, "
            f"headquarters has {plain_decimal(sums.get((currency, method), Decimal(0)))}.",
        }
        for currency, method in sorted(totals.keys() | sums.keys())
        if totals.get((currency, method), Decimal(0)) != sums.get((currency, method), Decimal(0))
    ]


def _has_changed(row: Row[Any], check: _Check) -> bool:
    return not check.reasons or row.status != "blocked" or row.reasons != check.reasons


def _change(row: Row[Any], check: _Check, now: datetime) -> dict[str, Any]:
    posted = not check.reasons
    amounts = [
        {"currency": currency, "payment_method": method, "amount": plain_decimal(amount)}
        for (currency, method), amount in sorted(check.posted_by_this_statement.items())
    ]
    return {
        "of": row.statement_id,
        "status": "posted" if posted else "blocked",
        "why": check.reasons,
        "totals": {"transactions": check.count, "amounts": amounts} if posted else {},
        "posted_at": now if posted else None,
    }


_UNPOSTED: Final = text(
    """
    SELECT statement_id::text, control_totals, status, reasons FROM statements
    WHERE status = ANY (:statuses)
    ORDER BY status = 'blocked', CASE WHEN status = 'waiting' THEN received_at END, random()
    LIMIT :rows_max FOR UPDATE
    """
)
"""New ones first, then blocked ones in random order, so that each is checked sooner or later."""

_NOT_READY: Final = text(
    """
    SELECT statement_id::text, standing, count(*) AS how_many,
           array_to_json((array_agg(transaction_id ORDER BY transaction_id))[1:CAST(:named_max AS integer)]) AS first
    FROM (
        SELECT listed.statement_id, listed.transaction_id,
               CASE WHEN sold.transaction_id IS NULL THEN 'missing'
                    WHEN sold.channel_id <> statements.channel_id OR sold.kind <> 'cash_and_carry' THEN 'misplaced'
                    ELSE sold.status END AS standing
        FROM statement_listed AS listed
        JOIN statements ON statements.statement_id = listed.statement_id
        LEFT JOIN retail_transactions AS sold ON sold.transaction_id = listed.transaction_id
        WHERE listed.statement_id = ANY (CAST(:ids AS uuid[]))
    ) AS standings
    WHERE standing <> 'synchronized'
    GROUP BY statement_id, standing
    ORDER BY statement_id, standing
    """
)
"""The transactions that keep statements from being posted, by code; the first ones of each code by id."""

_COUNTS: Final = text(
    """
    SELECT statement_id::text, count(*) AS how_many FROM statement_listed
    WHERE statement_id = ANY (CAST(:ids AS uuid[])) AND owned GROUP BY statement_id
    """
)

_SUMS: Final = text(
    """
    SELECT listed.statement_id::text, listed.owned, sold.currency, paid.method, sum(paid.amount) AS amount
    FROM statement_listed AS listed
    JOIN retail_transactions AS sold ON sold.transaction_id = listed.transaction_id
    CROSS JOIN LATERAL json_to_recordset(sold.content->'payments') AS paid (method text, amount numeric)
    WHERE listed.statement_id = ANY (CAST(:ids AS uuid[]))
    GROUP BY listed.statement_id, listed.owned, sold.currency, paid.method
    """
)

_POST_LINES: Final = text(
    """
    INSERT INTO statement_lines (transaction_id, statement_id, account_number, currency, total)
    SELECT sold.transaction_id, listed.statement_id, sold.account_number, sold.currency, sold.total
    FROM statement_listed AS listed
    JOIN retail_transactions AS sold ON sold.transaction_id = listed.transaction_id
    WHERE listed.statement_id = ANY (CAST(:ids AS uuid[])) AND listed.owned
    """
)

_CHANGE: Final = text(
    """
    UPDATE statements
    SET status = :status, reasons = :why, totals = :totals, posted_at = :posted_at, answer = answer + 1
    WHERE statement_id = :of
    RETURNING statement_id::text, channel_id, status, reasons, answer, partition, "offset"
    """
).bindparams(bindparam("why", type_=JSON), bindparam("totals", type_=JSON))

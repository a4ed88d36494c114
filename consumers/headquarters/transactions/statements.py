"""Post statements: an end of day whose transactions all are there and synchronized, and add up as the channel says.

Until then a statement is blocked, with every reason; what posts it is the next round after the last reason is gone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import JSON, Connection, Row, bindparam, text

from tenten.consumers.headquarters.transactions.end_of_day import statement_answer
from tenten.consumers.headquarters.transactions.reply_outbox import Answer
from tenten.rules.customer import plain_decimal

STATEMENTS_MAX: Final = 1_000
"""Statements that one round looks at."""

NAMED_MAX: Final = 20
"""How many transactions a reason names; the others are counted."""

_TEXTS: Final = {
    "missing": "It is listed, and has not come to headquarters.",
    "misplaced": "It is listed, and is no cash-and-carry transaction of this channel.",
    "waiting": "It waits for its customer.",
    "blocked": "Its customer is blocked: see the transaction.",
    "rejected": "It is rejected: see the transaction, mend it and send it again.",
}

_Sums = dict[tuple[str, str], Decimal]


@dataclass(kw_only=True)
class _Listed:
    """What is known of the transactions that a statement lists."""

    reasons: list[dict[str, str]] = field(default_factory=list)
    count: int = 0
    """Of its own; what an earlier statement owns is not counted."""
    own: _Sums = field(default_factory=lambda: defaultdict(Decimal))
    all: _Sums = field(default_factory=lambda: defaultdict(Decimal))


def judge_statements(headquarters: Connection, now: datetime, *, sweep: bool) -> list[Answer]:
    """Post what can be posted, and note why the others cannot; an answer for each that has changed. Outside of sweeps
    only new ones are looked at: where every store has closed its day and waits for customers, there are many others.

    A few SQL statements, however many transactions there are, and one for each statement that has changed.
    """
    statuses = ["waiting", "blocked"] if sweep else ["waiting"]
    opened = headquarters.execute(_OPEN, {"statuses": statuses, "rows_max": STATEMENTS_MAX}).all()
    if not opened:
        return []
    listed = {row.statement_id: _Listed() for row in opened}
    for row in headquarters.execute(_NOT_READY, {"ids": list(listed), "named_max": NAMED_MAX}):
        listed[row.statement_id].reasons.extend(_not_ready(row))
    complete = {"ids": [one for one, known in listed.items() if not known.reasons]}
    for row in headquarters.execute(_COUNTS, complete):
        listed[row.statement_id].count = row.how_many
    for row in headquarters.execute(_SUMS, complete):
        listed[row.statement_id].all[row.currency, row.method] += row.amount
        if row.owned:
            listed[row.statement_id].own[row.currency, row.method] += row.amount
    for row in opened:
        if row.control_totals is not None and not listed[row.statement_id].reasons:
            listed[row.statement_id].reasons.extend(_differences(row.control_totals, listed[row.statement_id].all))
    posted = [one for one, known in listed.items() if not known.reasons]
    headquarters.execute(_POST_LINES, {"ids": posted})
    changed = [_change(row, listed[row.statement_id], now) for row in opened if _has_changed(row, listed)]
    return [statement_answer(one) for row in changed for one in headquarters.execute(_CHANGE, row)]


def _not_ready(row: Row[Any]) -> list[dict[str, str]]:
    """Reasons for transactions that stand in the same way: the first ones by their id, the others counted."""
    reasons = [{"field": one, "code": row.standing, "text": _TEXTS[row.standing]} for one in row.first]
    more = row.how_many - len(row.first)
    if more:
        reasons.append({"field": "", "code": row.standing, "text": f"So do {more} more transactions."})
    return reasons


def _differences(control: Sequence[Mapping[str, str]], sums: _Sums) -> list[dict[str, str]]:
    """Where the sums at headquarters are others than the channel's."""
    wanted = {(one["currency"], one["payment_method"]): Decimal(one["amount"]) for one in control}
    return [
        {
            "field": f"control_totals/{currency}/{method}",
            "code": "does_not_add_up",
            "text": f"The channel has {plain_decimal(wanted.get((currency, method), Decimal(0)))}, "
            f"headquarters {plain_decimal(sums.get((currency, method), Decimal(0)))}.",
        }
        for currency, method in sorted(wanted.keys() | sums.keys())
        if wanted.get((currency, method), Decimal(0)) != sums.get((currency, method), Decimal(0))
    ]


def _has_changed(row: Row[Any], listed: Mapping[str, _Listed]) -> bool:
    reasons = listed[row.statement_id].reasons
    return not reasons or row.status != "blocked" or row.reasons != reasons


def _change(row: Row[Any], listed: _Listed, now: datetime) -> dict[str, Any]:
    posted = not listed.reasons
    amounts = [
        {"currency": currency, "payment_method": method, "amount": plain_decimal(amount)}
        for (currency, method), amount in sorted(listed.own.items())
    ]
    return {
        "of": row.statement_id,
        "status": "posted" if posted else "blocked",
        "why": listed.reasons,
        "totals": {"transactions": listed.count, "amounts": amounts} if posted else {},
        "posted_at": now if posted else None,
    }


_OPEN: Final = text(
    """
    SELECT statement_id::text, control_totals, status, reasons FROM statements
    WHERE status = ANY (:statuses)
    ORDER BY status = 'blocked', CASE WHEN status = 'waiting' THEN received_at END, random()
    LIMIT :rows_max FOR UPDATE
    """
)
"""New ones first. Of more blocked ones than a round looks at, chance says which it looks at: each has its turn."""

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
"""What keeps statements from being posted; the first transactions of each kind by id."""

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
    RETURNING statement_id::text, channel_id, status, reasons, answer
    """
).bindparams(bindparam("why", type_=JSON), bindparam("totals", type_=JSON))

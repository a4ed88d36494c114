"""Checks of ends of day (T4): each is one statement, each sale of its day is in one, and sums are to the cent."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from tests.faults.case import Case
from tests.faults.evidence import Record
from tests.faults.sold import sent_as
from tests.faults.states import Row, parsed

Sums = dict[tuple[str, str], Decimal]


def statements_match_ends_of_day(case: Case) -> Iterator[str]:
    """Each end of day is a statement with the same list, and each sale is posted once."""
    sales = case.evidence.headquarters.sales
    listed = _by_statement(sales.listed)
    for statement_id, row in sales.statements.items():
        ids = _ids(listed[statement_id])
        if row["kind"] == "end_of_day":
            if _counted(case, row, ids) is None:
                yield f"T4: statement {statement_id} has a different list than every end of day of its id"
        elif wrong := [key for key in sorted(ids) if not _is_of_that_day(sales.transactions.get(key), row)]:
            yield f"T4: the adjustment {statement_id} has {wrong}, which are not sales of its channel and day"
    yield from _listed_as_posted_once(case, listed)
    yield from _posted_once(case, listed)
    yield from _nothing_forgotten(case, listed)


def _ids(rows: Iterable[Row]) -> set[str]:
    return {str(row["transaction_id"]) for row in rows}


def _by_statement(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[str(row["statement_id"])].append(row)
    return found


def _counted(case: Case, statement: Row, ids: set[str]) -> tuple[Record, dict[str, Any]] | None:
    """The record of the statement of an end of day: the first with the same list, or any if it was rejected."""
    for record, sent in case.transactions.get(str(statement["statement_id"]), ()):
        if sent["kind"] != "END_OF_DAY" or sent["channel_id"] != statement["channel_id"]:
            continue
        if statement["status"] == "rejected" or (set(sent["listed"]) == ids and len(ids) == len(sent["listed"])):
            return record, sent
    return None


def _is_of_that_day(sale: Row | None, statement: Row) -> bool:
    names = ("channel_id", "business_date")
    return (
        sale is not None and sale["kind"] == "cash_and_carry" and all(sale[name] == statement[name] for name in names)
    )


def _listed_as_posted_once(case: Case, listed: Mapping[str, list[Row]]) -> Iterator[str]:
    owners: dict[str, list[str]] = defaultdict(list)
    for statement_id, rows in listed.items():
        for row in rows:
            owners[str(row["transaction_id"])] += [statement_id] if row["owned"] else []
    for transaction_id, statements in owners.items():
        if len(statements) != 1:
            yield f"T4: sale {transaction_id} is listed, and {len(statements)} statements list it as posted by them"


def _posted_once(case: Case, listed: Mapping[str, list[Row]]) -> Iterator[str]:
    """The lines of a posted statement are the sales listed as posted by it; other statements have no lines."""
    sales = case.evidence.headquarters.sales
    posted: dict[str, list[str]] = defaultdict(list)
    for line in sales.statement_lines:
        posted[str(line["transaction_id"])].append(str(line["statement_id"]))
    for transaction_id, statements in posted.items():
        if len(statements) > 1:
            yield f"T4: sale {transaction_id} is posted {len(statements)} times"
        sale = sales.transactions.get(transaction_id)
        if sale is None or sale["kind"] != "cash_and_carry" or sale["status"] != "synchronized":
            yield f"T4: {transaction_id} is posted, and is not a synchronized sale"
    lines = _by_statement(sales.statement_lines)
    for statement_id, row in sales.statements.items():
        own = _ids(entry for entry in listed[statement_id] if entry["owned"])
        expected = own if row["status"] == "posted" else set()
        written = _ids(lines[statement_id])
        if written != expected:
            yield f"T4: statement {statement_id} is {row['status']}, and lacks or has too many of {written ^ expected}"
    for statement_id in sorted(lines.keys() - sales.statements.keys()):
        yield f"T4: there are lines of statement {statement_id}, which does not exist"


def _nothing_forgotten(case: Case, listed: Mapping[str, list[Row]]) -> Iterator[str]:
    """A sale sent before an end of its day is in a statement, whether the channel listed it or not."""
    sales = case.evidence.headquarters.sales
    ends: dict[tuple[str, Any], int] = {}
    for statement_id, row in sales.statements.items():
        counted = _counted(case, row, _ids(listed[statement_id]))
        if counted is not None and row["status"] != "rejected":
            day = row["channel_id"], row["business_date"]
            ends[day] = max(ends.get(day, 0), counted[0].offset)
    known = _ids(sales.listed)
    for transaction_id, row in sales.transactions.items():
        before_an_end = row["offset"] < ends.get((row["channel_id"], row["business_date"]), 0)
        is_sold = row["kind"] == "cash_and_carry" and row["status"] != "rejected"
        if is_sold and before_an_end and transaction_id not in known:
            yield f"T4: sale {transaction_id} was sent before an end of its day, and is in no statement"


def totals_are_exact(case: Case) -> Iterator[str]:
    """Each statement has the sums of its lines' payments, and is posted if it can be."""
    sales = case.evidence.headquarters.sales
    listed, lines = _by_statement(sales.listed), _by_statement(sales.statement_lines)
    for statement_id, row in sales.statements.items():
        if row["status"] == "rejected":
            continue
        every = [str(entry["transaction_id"]) for entry in listed[statement_id]]
        if row["status"] == "posted":
            own = [str(line["transaction_id"]) for line in lines[statement_id]]
            expected = {"transactions": len(own), "amounts": _sums(case, own)}
            totals = parsed(row["totals"])
            if expected != {"transactions": totals["transactions"], "amounts": _read(totals["amounts"])}:
                yield f"T4: the totals of statement {statement_id} are not those of its lines"
            if row["control_totals"] is not None and _read(parsed(row["control_totals"])) != _sums(case, every):
                yield f"T4: statement {statement_id} is posted, and its control totals differ"
        elif all(_is_ready(case, key, row) for key in every) and (
            row["control_totals"] is None or _read(parsed(row["control_totals"])) == _sums(case, every)
        ):
            yield f"T6: statement {statement_id} is {row['status']}, and nothing keeps it from being posted"
    for line in sales.statement_lines:
        sale = sales.transactions.get(str(line["transaction_id"]))
        sent = None if sale is None else sent_as(case, sale)
        if sent is not None and (line["currency"], line["total"]) != (sent["currency"], sent["total"]):
            yield f"T4: the statement line of {line['transaction_id']} has a different total than was sent"


def _is_ready(case: Case, transaction_id: str, statement: Row) -> bool:
    sale = case.evidence.headquarters.sales.transactions.get(transaction_id)
    return (
        sale is not None
        and (sale["kind"], sale["status"]) == ("cash_and_carry", "synchronized")
        and sale["channel_id"] == statement["channel_id"]
    )


def _sums(case: Case, transaction_ids: Iterable[str]) -> Sums:
    sums: Sums = defaultdict(Decimal)
    for transaction_id in transaction_ids:
        row = case.evidence.headquarters.sales.transactions.get(transaction_id)
        sent = None if row is None else sent_as(case, row)
        if sent is not None:
            for payment in sent["payments"]:
                sums[sent["currency"], payment["method"]] += payment["amount"]
    return dict(sums)


def _read(totals: Iterable[Mapping[str, Any]]) -> Sums:
    return {(total["currency"], total["payment_method"]): Decimal(total["amount"]) for total in totals}

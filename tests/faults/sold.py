"""The checks of what channels sold: each transaction in one place, with its customer, its lines and its answers.

T1  a transaction is in the database, refused by an answer, or a dead letter; and its customer's event went on
T2  a synchronized order is one sales order, which says what was sent; numbers have no gap
T3  nothing synchronized has a customer without the account number that headquarters gave
T4  an end of day is one statement, and a sale of that day in one at most; its sums are to the cent (`closed.py`)
T5  a channel is told of every change, in order, and last of how things stand
T6  nothing waits for what is there
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tests.faults.case import Case
from tests.faults.states import Row, parsed

_LINE: Final = ("sku", "quantity", "price", "amount")
_ORDER: Final = ("channel_id", "business_date", "legal_entity", "currency", "total", "delivery_mode")


def row_of(case: Case, transaction_id: str) -> Row | None:
    """The row of a sale, or of the statement of an end of day."""
    sales = case.evidence.headquarters.sales
    return sales.transactions.get(transaction_id) or sales.statements.get(transaction_id)


def sent_as(case: Case, row: Row) -> dict[str, Any] | None:
    """The record that the row of a sale was made from: the one at its place."""
    for record, transaction in case.transactions.get(str(row["transaction_id"]), ()):
        if (record.partition, record.offset) == (row["partition"], row["offset"]):
            return transaction
    return None


def transactions_have_their_place(case: Case) -> Iterator[str]:
    """T1, and I8: nothing lost, and nothing that was never committed."""
    refused = {
        (one["channel_id"], one["event_id"])
        for _, one in case.sales_replies
        if one["transaction_status"] == "rejected" and any(why["code"] == "duplicate" for why in one["reasons"])
    }
    for transaction_id, sent in case.transactions.items():
        row = row_of(case, transaction_id)
        if row is None:
            yield f"T1: transaction {transaction_id} at {sent[0][0].place} is neither in the database nor a dead letter"
            continue
        strangers = {one["channel_id"] for _, one in sent} - {row["channel_id"]}
        for channel in sorted(strangers):
            if (channel, transaction_id) not in refused:
                yield f"T1: nobody told {channel} that transaction {transaction_id} is another channel's"
        came = sum(one["channel_id"] == row["channel_id"] for _, one in sent)
        if row["repeats"] < came - 1:
            yield f"T1: transaction {transaction_id} came {came} times, and {row['repeats']} repeats are counted"
    for transaction_id, row in case.evidence.headquarters.sales.transactions.items():
        if sent_as(case, row) is None:
            place = f"{row['partition']}/{row['offset']}"
            yield f"I8: transaction {transaction_id} is in the database as {place}, where no committed record has it"
    yield from _customers_went_on(case)


def _customers_went_on(case: Case) -> Iterator[str]:
    there = {(record.key, record.value) for record in case.evidence.committed["async-customers"]}
    for transaction_id, sent in case.transactions.items():
        for _, one in sent:
            brought = one["customer_event"]
            if brought is not None and ((one["customer_id"] or "").encode(), brought) not in there:
                event_id = one["customer_event_id"]
                yield f"T1: event {event_id}, which transaction {transaction_id} brought, is not on async-customers"


def sales_orders_are_what_was_sent(case: Case) -> Iterator[str]:
    """T2: each synchronized order once, with its lines and all the rest, under numbers without a gap."""
    sales = case.evidence.headquarters.sales
    orders: dict[str, list[Row]] = defaultdict(list)
    for order in sales.orders:
        orders[str(order["transaction_id"])].append(order)
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in sales.order_lines:
        lines[line["legal_entity"], line["sales_order"]].append(line)
    for transaction_id, row in sales.transactions.items():
        own = orders.pop(transaction_id, [])
        wanted = int(row["kind"] == "order" and row["status"] == "synchronized")
        if len(own) != wanted:
            yield f"T2: {row['kind']} {transaction_id} is {row['status']}, and {len(own)} sales orders"
        sent = sent_as(case, row)
        for order in own if sent is not None else ():
            yield from _differs(order, lines[order["legal_entity"], order["sales_order"]], sent or {})
    for transaction_id in orders:
        yield f"T2: a sales order was made of {transaction_id}, which is no transaction"
    yield from _numbered_without_gap(case)


def _differs(order: Row, lines: Iterable[Row], sent: Mapping[str, Any]) -> Iterator[str]:
    for name in _ORDER:
        if order[name] != sent[name]:
            yield f"T2: sales order {order['sales_order']} has another {name} than was sent"
    if str(order["customer_id"] or "") != (sent["customer_id"] or ""):
        yield f"T2: sales order {order['sales_order']} has another customer than was sent"
    if parsed(order["delivery_address"]) != sent["delivery_address"]:
        yield f"T2: sales order {order['sales_order']} goes to another address than was sent"
    written = {line["line_number"]: {name: line[name] for name in _LINE} for line in lines}
    if written != dict(enumerate(sent["lines"], 1)):
        yield f"T2: sales order {order['sales_order']} has other lines than were sent"


def _numbered_without_gap(case: Case) -> Iterator[str]:
    sales, written = case.evidence.headquarters.sales, case.setting.sales_orders
    for entity, sequence in sales.sequences.items():
        taken = Counter(written.number(one["sales_order"]) for one in sales.orders if one["legal_entity"] == entity)
        twice = sorted(number for number, times in taken.items() if times > 1)
        if twice:
            yield f"T2: {entity} has given out the sales order numbers {twice[:10]} more than once"
        wanted = set(range(written.first, sequence["next"]))
        if wanted != taken.keys():
            odd = sorted(wanted ^ taken.keys())
            yield f"T2: the sales orders of {entity} lack, or have too many of, the numbers {odd[:10]}"


def customers_are_synchronized(case: Case) -> Iterator[str]:
    """T3: whatever headquarters books has the account number of its customer, and the customer is there."""
    sales = case.evidence.headquarters.sales
    customer_ids = {key: row["customer_id"] for key, row in sales.transactions.items()}
    booked = [("transaction", one) for one in sales.transactions.values() if one["status"] == "synchronized"]
    booked += [("sales order of", one) for one in sales.orders]
    booked += [("statement line of", one) for one in sales.statement_lines]
    for what, row in booked:
        transaction_id = str(row["transaction_id"])
        customer_id = customer_ids.get(transaction_id)
        if customer_id is None:
            if row["account_number"] is not None:
                yield f"T3: {what} {transaction_id} has an account number, and no customer"
            continue
        customer = case.evidence.headquarters.customers.get(str(customer_id))
        if customer is None:
            yield f"T3: {what} {transaction_id} has a customer that headquarters does not know"
        elif row["account_number"] != customer["account_number"]:
            numbers = f"{row['account_number']} instead of {customer['account_number']}"
            yield f"T3: {what} {transaction_id} has the account number {numbers}"


def answers_are_told(case: Case) -> Iterator[str]:
    """T5: the numbers of a transaction's answers grow from one to the table's, and the last is how it stands."""
    sales = case.evidence.headquarters.sales
    if sales.replies_due:
        yield f"T5: {sum(one['answer_count'] for one in sales.replies_due)} answers were never sent"
    told: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, reply in case.sales_replies:
        told[reply["channel_id"], reply["event_id"]].append(reply)
    for transaction_id in {one for _, one in told}:
        if row_of(case, transaction_id) is None:
            yield f"I8: transaction {transaction_id} was answered, and is not in the database"
    for transaction_id, row in [*sales.transactions.items(), *sales.statements.items()]:
        yield from _told(case, f"{row['channel_id']} of {transaction_id}", row, told[row["channel_id"], transaction_id])


def _told(case: Case, who: str, row: Row, replies: list[dict[str, Any]]) -> Iterator[str]:
    """What a channel was told of one transaction. Answers may come again, and nothing else may come under a number."""
    first: dict[int, dict[str, Any]] = {}
    for reply in replies:
        known = first.setdefault(reply["version"], reply)
        if _said(known) != _said(reply):
            yield f"T5: {who} was told two things as answer {reply['version']}"
    if [*first] != [*range(1, row["answer"] + 1)]:
        yield f"T5: {who} was told the answers {[*first]} of {row['answer']}"
        return
    if not first:
        yield f"T5: nobody told {who}"
        return
    sales_orders = {str(one["transaction_id"]): one["sales_order"] for one in case.evidence.headquarters.sales.orders}
    last = first[row["answer"]]
    stands = (row["status"], parsed(row["reasons"]), row.get("account_number"), sales_orders.get(last["event_id"]))
    if _said(last)[:4] != stands:
        yield f"T5: {who} was told last that it is {last['transaction_status']}, and it is {row['status']}"
    for reply in first.values():
        if (reply["outcome"] == "REJECTED") != (reply["transaction_status"] == "rejected"):
            yield f"T5: {who} was told {reply['outcome']} of what is {reply['transaction_status']}"


def _said(reply: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("transaction_status", "reasons", "account_number", "sales_order", "outcome", "customer_id")
    return tuple(reply[name] for name in names)


def nothing_waits_in_vain(case: Case) -> Iterator[str]:
    """T6: what is not let through lacks its customer, and what is blocked says why."""
    tables = case.evidence.headquarters
    for transaction_id, row in tables.sales.transactions.items():
        if row["status"] == "rejected" and any(_adds_up(one) for _, one in case.transactions[transaction_id]):
            yield f"T6: transaction {transaction_id} is rejected, and was sent mended"
        if row["status"] not in ("waiting", "blocked"):
            continue
        customer = tables.customers.get(str(row["customer_id"]))
        event = tables.log.get(str(row["customer_event_id"]))
        if row["customer_id"] is None:
            yield f"T6: transaction {transaction_id} is {row['status']}, and has no customer"
        elif customer is not None and _is_synchronized(case, row, customer, event):
            yield f"T6: transaction {transaction_id} is {row['status']}, and its customer is synchronized"
        refused = event is not None and event["outcome"] == "rejected"
        if (row["status"] == "blocked") != refused:
            yield f"T6: transaction {transaction_id} is {row['status']}, and its event is {event and event['outcome']}"
        elif event is not None and refused and parsed(row["reasons"]) != parsed(event["reasons"]):
            yield f"T6: transaction {transaction_id} is blocked with other reasons than its event is rejected with"


def _adds_up(sent: Mapping[str, Any]) -> bool:
    """Whether it keeps the one rule of transactions that the tests break."""
    amounts = [one["amount"] for name in ("lines", "charges", "taxes") for one in sent[name]]
    return bool(amounts) and sum(amounts) == sent["total"]


def _is_synchronized(case: Case, row: Row, customer: Row, event: Row | None) -> bool:
    """Whether headquarters knows the customer, and the address, as the transaction has them."""
    if row["customer_event_id"] is None or customer["erased_at"] is not None:
        return True
    if event is None:
        return False
    address_id, state = row["delivery_address_id"], case.evidence.headquarters.states[str(row["customer_id"])]
    return event["outcome"] != "rejected" or address_id is None or str(address_id) in state["addresses"]

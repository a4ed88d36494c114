"""Checks of transactions: each is stored once, with its customer, its lines and its replies.

T1  a transaction is in the database, rejected by a reply, or a dead letter; and headquarters knows its customer event
T2  a synchronized order is one sales order with the content that was sent; numbers have no gap
T3  no synchronized transaction has a customer without the account number that headquarters gave
T4  an end of day is one statement, and a sale of that day in one at most; its sums are to the cent (`closed.py`)
T5  a channel receives a reply for every change, in order, the last with the current status
T6  no transaction waits for a customer that is synchronized
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tests.faults.avro import decode
from tests.faults.case import Case
from tests.faults.states import Row, parsed

_LINE: Final = ("sku", "quantity", "price", "amount")
_ORDER: Final = ("channel_id", "business_date", "legal_entity", "currency", "total", "delivery_mode")


def row_of(case: Case, transaction_id: str) -> Row | None:
    """The row of a sale, or of the statement of an end of day."""
    sales = case.evidence.headquarters.sales
    return sales.transactions.get(transaction_id) or sales.statements.get(transaction_id)


def sent_as(case: Case, row: Row) -> dict[str, Any] | None:
    """The record of the row of a sale: the record at its partition and offset."""
    for record, transaction in case.transactions.get(str(row["transaction_id"]), ()):
        if (record.partition, record.offset) == (row["partition"], row["offset"]):
            return transaction
    return None


def transactions_are_stored(case: Case) -> Iterator[str]:
    """T1, and I8: nothing is lost, and every row has a committed record."""
    rejected = {
        (reply["channel_id"], reply["transaction_id"])
        for _, reply in case.sales_replies
        if reply["status"] == "rejected" and any(why["code"] == "duplicate" for why in reply["reasons"])
    }
    for transaction_id, sent in case.transactions.items():
        row = row_of(case, transaction_id)
        if row is None:
            yield f"T1: transaction {transaction_id} at {sent[0][0].place} is neither in the database nor a dead letter"
            continue
        others = {transaction["channel_id"] for _, transaction in sent} - {row["channel_id"]}
        for channel in sorted(others):
            if (channel, transaction_id) not in rejected:
                yield f"T1: no reply to {channel} that transaction {transaction_id} is another channel's"
        times = sum(transaction["channel_id"] == row["channel_id"] for _, transaction in sent)
        if row["repeats"] < times - 1:
            yield f"T1: transaction {transaction_id} was sent {times} times, and {row['repeats']} repeats are counted"
    for transaction_id, row in case.evidence.headquarters.sales.transactions.items():
        if sent_as(case, row) is None:
            place = f"{row['partition']}/{row['offset']}"
            yield f"I8: transaction {transaction_id} is in the database as {place}, where no committed record has it"
    yield from _customer_events_are_known(case)


def _customer_events_are_known(case: Case) -> Iterator[str]:
    """Each is on the topic as it is inside, or was logged before: then the topic has it in no other form."""
    on_topic = {(record.key, record.value) for record in case.evidence.committed["async-customers"]}
    ids_on_topic = {event["event_id"] for _, event in case.events}
    for transaction_id, sent in case.transactions.items():
        for _, transaction in sent:
            event, event_id = transaction["customer_event"], transaction["customer_event_id"]
            if event is None or ((transaction["customer_id"] or "").encode(), event) in on_topic:
                continue
            logged = case.evidence.headquarters.log.get(event_id)
            is_known = logged is not None and str(logged["customer_id"]) == transaction["customer_id"]
            if not is_known or event_id in ids_on_topic:
                yield f"T1: event {event_id} of transaction {transaction_id} is not on async-customers"


def sales_orders_match_orders(case: Case) -> Iterator[str]:
    """T2: each synchronized order once, with its content, under numbers without a gap."""
    sales = case.evidence.headquarters.sales
    orders: dict[str, list[Row]] = defaultdict(list)
    for order in sales.orders:
        orders[str(order["transaction_id"])].append(order)
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in sales.order_lines:
        lines[line["legal_entity"], line["sales_order"]].append(line)
    for transaction_id, row in sales.transactions.items():
        own = orders.pop(transaction_id, [])
        expected = int(row["kind"] == "order" and row["status"] == "synchronized")
        if len(own) != expected:
            yield f"T2: {row['kind']} {transaction_id} is {row['status']}, and {len(own)} sales orders"
        sent = sent_as(case, row)
        for order in own if sent is not None else ():
            yield from _differs(order, lines[order["legal_entity"], order["sales_order"]], sent or {})
    for transaction_id in orders:
        yield f"T2: there is a sales order of {transaction_id}, which is not a transaction"
    yield from _sales_order_numbers_have_no_gap(case)


def _differs(order: Row, lines: Iterable[Row], sent: Mapping[str, Any]) -> Iterator[str]:
    for name in _ORDER:
        if order[name] != sent[name]:
            yield f"T2: sales order {order['sales_order']} has a different {name} than was sent"
    if str(order["customer_id"] or "") != (sent["customer_id"] or ""):
        yield f"T2: sales order {order['sales_order']} has a different customer than was sent"
    if parsed(order["delivery_address"]) != sent["delivery_address"]:
        yield f"T2: sales order {order['sales_order']} goes to another address than was sent"
    written = {line["line_number"]: {name: line[name] for name in _LINE} for line in lines}
    if written != dict(enumerate(sent["lines"], 1)):
        yield f"T2: sales order {order['sales_order']} has other lines than were sent"


def _sales_order_numbers_have_no_gap(case: Case) -> Iterator[str]:
    sales, written = case.evidence.headquarters.sales, case.setting.sales_orders
    for entity, sequence in sales.sequences.items():
        own = [order["sales_order"] for order in sales.orders if order["legal_entity"] == entity]
        used = Counter(map(written.number, own))
        twice = sorted(number for number, times in used.items() if times > 1)
        if twice:
            yield f"T2: {entity} has given out the sales order numbers {twice[:10]} more than once"
        expected = set(range(written.first, sequence["next"]))
        if expected != used.keys():
            odd = sorted(expected ^ used.keys())
            yield f"T2: the sales orders of {entity} lack, or have too many of, the numbers {odd[:10]}"


def customers_are_synchronized(case: Case) -> Iterator[str]:
    """T3: everything booked has the account number of its customer, and the customer exists."""
    sales = case.evidence.headquarters.sales
    customer_ids = {key: row["customer_id"] for key, row in sales.transactions.items()}
    booked = [("transaction", row) for row in sales.transactions.values() if row["status"] == "synchronized"]
    booked += [("sales order of", row) for row in sales.orders]
    booked += [("statement line of", row) for row in sales.statement_lines]
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


def replies_are_sent(case: Case) -> Iterator[str]:
    """T5: the replies to a transaction are numbered from 1 to the number in its row, and the last has its status."""
    sales = case.evidence.headquarters.sales
    if sales.replies_due:
        yield f"T5: {sum(row['answer_count'] for row in sales.replies_due)} replies were never sent"
    sent: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, reply in case.sales_replies:
        sent[reply["channel_id"], reply["transaction_id"]].append(reply)
        if not _names_its_record(case, reply):
            yield f"T5: a reply to {reply['channel_id']} of {reply['transaction_id']} names no record of it"
    for transaction_id in {transaction_id for _, transaction_id in sent}:
        if row_of(case, transaction_id) is None:
            yield f"I8: transaction {transaction_id} has a reply, and is not in the database"
    sales_orders = {str(order["transaction_id"]): order["sales_order"] for order in sales.orders}
    for transaction_id, row in [*sales.transactions.items(), *sales.statements.items()]:
        own = sent[row["channel_id"], transaction_id]
        yield from _replies(sales_orders, f"{row['channel_id']} of {transaction_id}", row, own)


def _replies(sales_orders: Mapping[str, str], who: str, row: Row, replies: list[dict[str, Any]]) -> Iterator[str]:
    """The replies to a transaction. A reply may be repeated, but only with the same content."""
    first: dict[int, dict[str, Any]] = {}
    for reply in replies:
        known = first.setdefault(reply["sequence"], reply)
        if _content(known) != _content(reply):
            yield f"T5: two different replies {reply['sequence']} to {who}"
    if [*first] != [*range(1, row["answer"] + 1)]:
        yield f"T5: the replies to {who} are {[*first]} of {row['answer']}"
        return
    if not first:
        yield f"T5: no reply to {who}"
        return
    last = first[row["answer"]]
    current = (row["status"], parsed(row["reasons"]), sales_orders.get(last["transaction_id"]))
    if _content(last)[:3] != current:
        yield f"T5: the last reply to {who} is {last['status']}, and it is {row['status']}"


def _content(reply: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("status", "reasons", "sales_order", "input_partition", "input_offset")
    return tuple(reply[name] for name in names)


def unreadable_transactions_are_answered(case: Case) -> Iterator[str]:
    """T5: a channel receives a reply for each of its transactions that is a dead letter."""
    for origin, letters in case.dead_transactions.items():
        try:
            sent = decode("RetailTransaction", letters[0].value or b"")
        except ValueError:
            continue
        is_own = letters[0].key == sent["channel_id"].encode()
        if (
            is_own
            and sent["channel_id"] in case.setting.legal_entity_by_channel
            and origin not in case.unreadable_sales
        ):
            yield f"T5: {sent['channel_id']} was not told that transaction {sent['transaction_id']} is unreadable"


def _names_its_record(case: Case, reply: Mapping[str, Any]) -> bool:
    """Whether the channel sent the transaction at the position that the reply names.

    The reply to an adjustment names the end of day that caused it.
    """
    statement = case.evidence.headquarters.sales.statements.get(reply["transaction_id"], {})
    if statement.get("kind") == "adjustment":
        possible = [sent for each in case.transactions.values() for sent in each if sent[1]["kind"] == "END_OF_DAY"]
    else:
        possible = case.transactions.get(reply["transaction_id"], [])
    place = (reply["channel_id"], reply["input_partition"], reply["input_offset"])
    return any((sent["channel_id"], record.partition, record.offset) == place for record, sent in possible)


def no_transaction_waits_needlessly(case: Case) -> Iterator[str]:
    """T6: a waiting transaction lacks its customer, and a blocked one has reasons."""
    tables = case.evidence.headquarters
    for transaction_id, row in tables.sales.transactions.items():
        if row["status"] == "rejected" and any(_adds_up(sent) for _, sent in case.transactions[transaction_id]):
            yield f"T6: transaction {transaction_id} is rejected, and was sent corrected"
        if row["status"] not in ("waiting", "blocked"):
            continue
        customer = tables.customers.get(str(row["customer_id"]))
        event = tables.log.get(str(row["customer_event_id"]))
        if row["customer_id"] is None:
            yield f"T6: transaction {transaction_id} is {row['status']}, and has no customer"
        elif customer is not None and _is_synchronized(case, row, customer, event):
            yield f"T6: transaction {transaction_id} is {row['status']}, and its customer is synchronized"
        rejected = event is not None and event["outcome"] == "rejected"
        if (row["status"] == "blocked") != rejected:
            yield f"T6: transaction {transaction_id} is {row['status']}, and its event is {event and event['outcome']}"
        elif event is not None and rejected and parsed(row["reasons"]) != parsed(event["reasons"]):
            yield f"T6: transaction {transaction_id} is blocked with other reasons than its event is rejected with"


def _adds_up(sent: Mapping[str, Any]) -> bool:
    """Whether it satisfies the only rule of transactions that the tests violate."""
    amounts = [item["amount"] for name in ("lines", "charges", "taxes") for item in sent[name]]
    return bool(amounts) and sum(amounts) == sent["total"]


def _is_synchronized(case: Case, row: Row, customer: Row, event: Row | None) -> bool:
    """Whether headquarters has the customer and the address of the transaction."""
    if row["customer_event_id"] is None or customer["erased_at"] is not None:
        return True
    if event is None or event["outcome"] == "held":
        return False
    address_id, state = row["delivery_address_id"], case.evidence.headquarters.states[str(row["customer_id"])]
    return event["outcome"] != "rejected" or address_id is None or str(address_id) in state["addresses"]

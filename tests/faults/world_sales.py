"""The sales of a store as the same perfect headquarters would store them: plain values that a test may change."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg.types.json import Json

from tests.faults.avro import decode
from tests.faults.evidence import Record, read_topic
from tests.faults.journal import Operation, Writer
from tests.faults.traffic import Event
from tests.sales import Till, Transaction

_EVENING: Final = datetime(2026, 3, 2, 20, 0, tzinfo=UTC)
ADJUSTMENT: Final = "00000000-0000-4000-8000-00000000000a"

Row = dict[str, Any]


@dataclass(slots=True)
class WorldSales:
    """A day of a store: orders and sales of all kinds, two ends of day, and a sale that none lists."""

    till: Till = field(default_factory=lambda: Till(channel_id="houston"))
    sent: list[Transaction] = field(default_factory=list)
    places: dict[str, Record] = field(default_factory=dict)
    """By transaction id: its first record."""
    place_in_dallas: Record | None = None
    """The record of dallas with the id of a transaction of houston."""
    poison: Record | None = None
    transactions: dict[str, Row] = field(default_factory=dict)
    orders: list[Row] = field(default_factory=list)
    statements: dict[str, Row] = field(default_factory=dict)
    listed: list[Row] = field(default_factory=list)
    statement_lines: list[Row] = field(default_factory=list)
    replies: list[Row] = field(default_factory=list)
    replies_due: list[Row] = field(default_factory=list)
    next_number: int = 1
    positions: dict[int, int] = field(default_factory=dict)
    group_offsets: dict[int, int] = field(default_factory=dict)

    def sell(self, created: Event, known: Event, erased: Event, rejected: Event) -> None:
        """Fill `sent`: released, blocked and waiting orders; sales in three statements."""
        till = self.till
        brings, plain = till.order(created), till.order()
        late = till.order(customer_id=known["customer_id"])
        blocked, waits = till.order(rejected), till.order(customer_id="00000000-0000-4000-8000-000000000001")
        sales = [till.sale(customer_id=known["customer_id"]), till.sale(("TEA", "3", "1.15"))]
        forgotten = till.sale(("TEA", "1", "1.00"), customer_id=erased["customer_id"])
        first = till.end_of_day(sales)
        missed = till.sale(("CUP", "-1", "4.50"))
        second = till.end_of_day([sales[1], missed])
        stolen = plain | {"channel_id": "dallas"}
        self.sent = [brings, plain, late, blocked, waits, plain, *sales, forgotten, first, missed, second, stolen]

    def write_topic(self, writer: Writer, bootstrap_servers: str, prefix: str) -> None:
        """Write `sent` to retail-transactions, with an unreadable record, and remember the positions."""
        for transaction in self.sent:
            writer.sell(transaction)
        writer.write(Operation(topic="retail-transactions", key=b"houston", value=b"no transaction"))
        writer.flush()
        for record in read_topic(bootstrap_servers, prefix, "retail-transactions"):
            self.positions[record.partition] = self.group_offsets[record.partition] = record.offset + 1
            if record.value == b"no transaction":
                self.poison = record
                continue
            transaction = decode("RetailTransaction", record.value or b"")
            if transaction["channel_id"] == "houston":
                self.places.setdefault(transaction["transaction_id"], record)
            else:
                self.place_in_dallas = record

    def ingest(self, numbers: dict[str, str], reasons: list[Row]) -> None:
        """Fill the tables from `sent`, with account numbers by customer id and the reasons of the rejected event."""
        brings, plain, late, blocked, waits, _, *sales, forgotten, first, missed, second, stolen = self.sent
        for transaction in (brings, plain, late, *sales, forgotten, missed):
            self._release(transaction, numbers.get(transaction["customer_id"]))
        self.transactions[plain["transaction_id"]]["repeats"] = 1
        self._store(waits, "waiting", [])
        self._store(blocked, "blocked", reasons)
        self._close(first["transaction_id"], first, sales, [])
        self._close(ADJUSTMENT, first, [forgotten], [])
        self._close(second["transaction_id"], second, [missed], [sales[1]])
        duplicate = {"field": "transaction_id", "code": "duplicate", "text": "It is another channel's."}
        self._reply(stolen, stolen["transaction_id"], {"status": "rejected", "reasons": [duplicate], "answer": 1})

    def _store(self, sent: Transaction, status: str, reasons: list[Row], account_number: str | None = None) -> Row:
        place = self.places[sent["transaction_id"]]
        address = sent["delivery_address"]
        row = {
            "transaction_id": sent["transaction_id"],
            "channel_id": sent["channel_id"],
            "kind": sent["kind"].lower(),
            "business_date": sent["business_date"],
            "legal_entity": sent["legal_entity"],
            "customer_id": sent["customer_id"],
            "account_number": account_number,
            "customer_event_id": sent["customer_event_id"],
            "delivery_address_id": None if address is None else address["address_id"],
            "status": status,
            "reasons": reasons,
            "currency": sent["currency"],
            "total": sent["total"],
            "content": {"lines": [{**line, **{name: str(line[name]) for name in _DECIMALS}} for line in sent["lines"]]},
            "answer": 1,
            "repeats": 0,
            "topic": "retail-transactions",
            "partition": place.partition,
            "offset": place.offset,
            "occurred_at": sent["occurred_at"],
            "received_at": _EVENING,
            "changed_at": _EVENING,
        }
        self.transactions[sent["transaction_id"]] = row
        self._reply(sent, sent["transaction_id"], row)
        return row

    def _release(self, sent: Transaction, account_number: str | None) -> None:
        row = self._store(sent, "synchronized", [], account_number)
        if sent["kind"] != "ORDER":
            return
        number = f"SO-{self.next_number:08}"
        self.next_number += 1
        self.replies[-1]["sales_order"] = number
        names = ("transaction_id", "channel_id", "business_date", "customer_id", "account_number", "currency", "total")
        key = {"legal_entity": sent["legal_entity"], "sales_order": number}
        delivery = {"delivery_mode": "", "delivery_address": None, "created_at": _EVENING}
        self.orders.append({**key, **{name: row[name] for name in names}, **delivery})

    def _close(self, statement_id: str, day: Transaction, own: list[Transaction], other: list[Transaction]) -> None:
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for sale in own:
            sums["CASH"] += sale["total"]
            line = {name: self.transactions[sale["transaction_id"]][name] for name in _LINE}
            self.statement_lines.append({**line, "statement_id": statement_id})
        for owned, sales in ((True, own), (False, other)):
            key = {"statement_id": statement_id, "channel_id": "houston", "owned": owned}
            self.listed += [{**key, "transaction_id": sale["transaction_id"]} for sale in sales]
        amounts = [
            {"currency": "USD", "payment_method": method, "amount": str(amount)} for method, amount in sums.items()
        ]
        control = [{**total, "amount": str(total["amount"])} for total in day["control_totals"]]
        self.statements[statement_id] = {
            "statement_id": statement_id,
            "channel_id": "houston",
            "business_date": day["business_date"],
            "number": len(self.statements) + 1,
            "kind": "adjustment" if statement_id == ADJUSTMENT else "end_of_day",
            "status": "posted",
            "reasons": [],
            "control_totals": None if statement_id == ADJUSTMENT else control,
            "totals": {"transactions": len(own), "amounts": amounts},
            "answer": 1,
            "repeats": 0,
            "closed_at": day["occurred_at"],
            "received_at": _EVENING,
            "posted_at": _EVENING,
        }
        self._reply(day, statement_id, self.statements[statement_id])

    def _reply(self, sent: Transaction, transaction_id: str, row: Row) -> None:
        place = self.place_in_dallas if sent["channel_id"] == "dallas" else self.places[sent["transaction_id"]]
        assert place is not None
        self.replies.append(
            {
                "channel_id": sent["channel_id"],
                "transaction_id": transaction_id,
                "status": row["status"],
                "sales_order": None,
                "reasons": row["reasons"],
                "sequence": row["answer"],
                "answered_at": _EVENING,
                "input_partition": place.partition,
                "input_offset": place.offset,
            }
        )

    def write_tables(self, connection: "psycopg.Connection[Any]") -> None:
        """Write the tables."""
        sequence = {"legal_entity": "usrt", "format": "SO-########", "next": self.next_number}
        tables: dict[str, list[Row]] = {
            "retail_transactions": [*self.transactions.values()],
            "sales_order_sequences": [sequence],
            "sales_orders": self.orders,
            "statements": [*self.statements.values()],
            "statement_listed": self.listed,
            "statement_lines": self.statement_lines,
            "replies_due": self.replies_due,
            "positions": [
                {"consumer_group": "transactions", "topic_id": "2", "partition": partition, "next_offset": offset}
                for partition, offset in self.positions.items()
            ],
        }
        for table, rows in tables.items():
            for row in rows:
                names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("%s" for _ in row)
                values = [_json(row, name) for name in row]
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), values)  # noqa: S608  # names from here


def _json(row: Row, name: str) -> Any:
    is_json = name in _JSON and row[name] is not None
    return Json(row[name], dumps=json.dumps) if is_json else row[name]


_DECIMALS: Final = ("quantity", "price", "amount")
_LINE: Final = ("transaction_id", "account_number", "currency", "total")
_JSON: Final = frozenset({"reasons", "content", "control_totals", "totals", "delivery_address"})

"""Transactions as channels send them, as plain Avro records: orders, cash-and-carry sales, ends of day."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final
from uuid import UUID

from tests.faults.avro import encode
from tests.faults.journal import Operation, Writer
from tests.scenes import LEGAL_ENTITY_BY_CHANNEL, Scene
from tests.waiting import wait_for

DAY: Final = date(2026, 3, 2)

Transaction = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Till:
    """The sales of one channel; remembers those that no end of day has listed yet."""

    channel_id: str
    currency: str = "USD"
    rng: random.Random = field(default_factory=lambda: random.Random(1010))
    """Another seed than that of the stores in tests, which would give the same ids."""
    open: list[Transaction] = field(default_factory=list)

    def order(self, event: dict[str, Any] | None = None, **fields: Any) -> Transaction:
        """An order of two lines; with a customer's event it is that customer's, and contains the event."""
        return self._sale("ORDER", [("LAMP", "1", "49.90"), ("BULB", "3", "0.335")], event, fields)

    def sale(self, *lines: tuple[str, str, str], event: dict[str, Any] | None = None, **fields: Any) -> Transaction:
        """A cash-and-carry sale of these lines (sku, quantity, price), or of one cup."""
        sold = self._sale("CASH_AND_CARRY", lines or [("CUP", "1", "4.50")], event, fields)
        if not fields.get("payments"):
            sold["payments"] = [{"method": "CASH", "amount": sold["total"]}]
        self.open.append(sold)
        return sold

    def end_of_day(self, listed: Sequence[Transaction] | None = None, **fields: Any) -> Transaction:
        """An end of day that lists these sales, or all open ones."""
        closed = self.open if listed is None else listed
        sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for sale in closed:
            for payment in sale["payments"]:
                sums[sale["currency"], payment["method"]] += payment["amount"]
        day = self._transaction("END_OF_DAY")
        day["currency"] = ""
        day["listed"] = [sale["transaction_id"] for sale in closed]
        day["control_totals"] = [
            {"currency": currency, "payment_method": method, "amount": amount}
            for (currency, method), amount in sorted(sums.items())
        ]
        if listed is None:
            self.open = []
        return day | fields

    def _sale(
        self,
        kind: str,
        lines: Sequence[tuple[str, str, str]],
        event: dict[str, Any] | None,
        fields: dict[str, Any],
    ) -> Transaction:
        sold = self._transaction(kind)
        for sku, quantity, price in lines:
            amount = (Decimal(quantity) * Decimal(price)).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)
            line = {"sku": sku, "quantity": Decimal(quantity), "price": Decimal(price), "amount": amount}
            sold["lines"].append(line)
            sold["total"] += amount
        if event is not None:
            sold["customer_id"] = event["customer_id"]
            sold["customer_event_id"] = event["event_id"]
            sold["customer_event"] = encode("CustomerEvent", event)
        return sold | fields

    def _transaction(self, kind: str) -> Transaction:
        return {
            "channel_id": self.channel_id,
            "transaction_id": str(UUID(int=self.rng.getrandbits(128), version=4)),
            "kind": kind,
            "occurred_at": datetime.now(UTC),
            "business_date": DAY,
            "legal_entity": LEGAL_ENTITY_BY_CHANNEL.get(self.channel_id, "usrt"),
            "customer_id": None,
            "customer_event_id": None,
            "customer_event": None,
            "currency": self.currency,
            "total": Decimal(0),
            "delivery_mode": "",
            "delivery_address": None,
            "lines": [],
            "charges": [],
            "taxes": [],
            "payments": [],
            "listed": [],
            "control_totals": [],
        }


def send(scene: Scene, *transactions: Transaction) -> None:
    """Write transactions in this order, and wait for the broker's acknowledgement."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for transaction in transactions:
        writer.sell(transaction)
    writer.flush()


def put(scene: Scene, *records: tuple[bytes | None, bytes | None]) -> None:
    """Write keys and values to `retail-transactions`, and wait for the broker's acknowledgement."""
    writer = Writer(scene.bootstrap_servers, scene.prefix, scene.journal)
    for key, value in records:
        writer.write(Operation(topic="retail-transactions", key=key, value=value))
    writer.flush()


def status(scene: Scene, transaction: Transaction) -> dict[str, Any]:
    """The row of a transaction, or of the statement of an end of day; empty if it does not exist."""
    table, key = ("statements", "statement_id") if transaction["kind"] == "END_OF_DAY" else _SALES
    rows = scene.query(f"SELECT * FROM {table} WHERE {key} = %s", transaction["transaction_id"])  # noqa: S608
    return rows[0] if rows else {}


_SALES: Final = ("retail_transactions", "transaction_id")


def wait_until(scene: Scene, transaction: Transaction, expected: str) -> dict[str, Any]:
    """The row of a transaction or statement, once it has this status."""

    def has_status() -> bool:
        for worker in scene.workers:
            worker.check()
        return status(scene, transaction).get("status") == expected

    try:
        wait_for(has_status, expected)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {status(scene, transaction)}") from None
    return status(scene, transaction)


def reply_with_status(scene: Scene, transaction: Transaction, expected: str) -> dict[str, Any]:
    """The newest reply to a transaction, once it has this status."""
    (reply,) = replies_with_statuses(scene, [(transaction, expected)])
    return reply


def replies_with_statuses(scene: Scene, expected: Sequence[tuple[Transaction, str]]) -> list[dict[str, Any]]:
    """The newest reply to each of these transactions, once each has its status."""
    statuses = {transaction["transaction_id"]: status for transaction, status in expected}
    found: dict[str, list[dict[str, Any]]] = {transaction_id: [] for transaction_id in statuses}
    with scene.follow("transaction-replies", "TransactionReply") as replies:

        def are_received() -> bool:
            for worker in scene.workers:
                worker.check()
            for _, reply in replies.more():
                if reply is not None and reply["transaction_id"] in found:
                    found[reply["transaction_id"]].append(reply)
            return all(found[key] and found[key][-1]["status"] == status for key, status in statuses.items())

        wait_for(are_received, f"replies {sorted(set(statuses.values()))}")
    for received in found.values():
        assert [reply["sequence"] for reply in received] == sorted(reply["sequence"] for reply in received)
    return [received[-1] for received in found.values()]

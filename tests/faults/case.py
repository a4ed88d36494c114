"""The evidence of a test, decoded once for all checks."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.avro import decode
from tests.faults.evidence import Evidence, Record, headers_of
from tests.faults.journal import Journal

UNREADABLE: Final = -1
"""The number of a reply to a transaction that is a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A number sequence as the test configured it."""

    format: str
    first: int = 1
    continuous: bool = True

    def number(self, account_number: str) -> int:
        """The number in an account number of this format."""
        before, _, after = self.format.partition("#" * self.format.count("#"))
        digits = account_number.removeprefix(before).removesuffix(after)
        assert account_number == f"{before}{digits}{after}", f"{account_number} is not of the format {self.format}"
        return int(digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The settings of the test: channels and number sequences."""

    legal_entity_by_channel: Mapping[str, str]
    sequences: Mapping[str, Sequence]
    address_books: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By channel; a channel without any reads every customer of its legal entity."""
    judge_content: bool = True
    """Whether the events violate no other rules than those of the model."""
    sales_orders: Sequence = Sequence(format="SO-########")
    """Of every legal entity."""
    holes: Mapping[str, Collection[int]] = field(default_factory=dict)
    """By legal entity: the numbers of a continuous sequence of which `recover` has said that no customer has them."""


@dataclass(slots=True)
class Case:
    """The evidence, decoded once."""

    evidence: Evidence
    journal: Journal
    setting: Setting
    events: list[tuple[Record, dict[str, Any]]] = field(default_factory=list)
    dead: dict[tuple[int, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    """Dead letters by the partition and offset that they came from."""
    replies: list[tuple[Record, dict[str, Any]]] = field(default_factory=list)
    """Replies to customer events."""
    snapshots: dict[str, list[tuple[Record, dict[str, Any] | None]]] = field(default_factory=lambda: defaultdict(list))
    """By customer id, oldest first; None is a tombstone."""
    earlier_snapshots: dict[str, list[tuple[Record, dict[str, Any] | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """The same of topics that were deleted since."""
    transactions: dict[str, list[tuple[Record, dict[str, Any]]]] = field(default_factory=lambda: defaultdict(list))
    """By transaction id, from any channel, with repeats."""
    dead_transactions: dict[tuple[int, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    """As `dead`, of retail-transactions."""
    sales_replies: list[tuple[Record, dict[str, Any]]] = field(default_factory=list)
    """Replies to transactions."""
    unreadable_sales: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    """Replies that a transaction is unreadable, by the partition and offset of its record."""


def read(case: Case) -> Iterator[str]:
    """Decode the topics. Outputs that cannot be decoded violate a promise themselves."""
    yield from _read_inputs(case)
    for record in (*case.evidence.earlier.get("channel-replies", ()), *case.evidence.committed["channel-replies"]):
        reply = decode("Reply", record.value or b"")
        if record.key != reply["channel_id"].encode():
            yield f"replies: {record.place} has a different channel than its key"
        if reply["transaction_status"]:
            yield f"replies: {record.place} answers a transaction, which is for another topic"
        if reply["outcome"] == "UNREADABLE":
            if (reply["input_partition"], reply["input_offset"]) not in case.dead:
                yield f"replies: {record.place} calls a record unreadable that is not a dead letter"
        else:
            case.replies.append((record, reply))
    yield from _read_transaction_replies(case)
    for records, snapshots in (
        (case.evidence.earlier.get("customers", ()), case.earlier_snapshots),
        (case.evidence.committed["customers"], case.snapshots),
    ):
        for record in records:
            snapshot = None if record.value is None else decode("Customer", record.value)
            customer_id = (record.key or b"").decode()
            if snapshot is not None and snapshot["customer_id"] != customer_id:
                yield f"snapshots: {record.place} has a different customer than its key"
            snapshots[customer_id].append((record, snapshot))


def _read_transaction_replies(case: Case) -> Iterator[str]:
    for record in case.evidence.committed["transaction-replies"]:
        reply = decode("TransactionReply", record.value or b"")
        if record.key != reply["channel_id"].encode():
            yield f"replies: {record.place} has a different channel than its key"
        if reply["sequence"] != UNREADABLE:
            case.sales_replies.append((record, reply))
        elif (reply["input_partition"], reply["input_offset"]) not in case.dead_transactions:
            yield f"replies: {record.place} calls a transaction unreadable that is not a dead letter"
        else:
            case.unreadable_sales[reply["input_partition"], reply["input_offset"]] = reply


def _read_inputs(case: Case) -> Iterator[str]:
    events = _readable(case, "async-customers", "CustomerEvent", case.dead)
    transactions = _readable(case, "retail-transactions", "RetailTransaction", case.dead_transactions)
    for record, event in events:
        if event is None:
            yield f"I4: {record.place} is neither an event nor a dead letter"
        else:
            case.events.append((record, event))
    for record, transaction in transactions:
        if transaction is None:
            yield f"T1: {record.place} is neither a transaction nor a dead letter"
        else:
            case.transactions[transaction["transaction_id"]].append((record, transaction))


def _readable(
    case: Case, topic: str, contract: str, dead: dict[tuple[int, int], list[Record]]
) -> Iterator[tuple[Record, dict[str, Any] | None]]:
    """Every record of a topic that is not a dead letter, decoded; None if that fails."""
    for letter in case.evidence.committed[f"{topic}.dlq"]:
        headers = headers_of(letter)
        origin = (int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"]))
        dead[origin].append(letter)
    for record in case.evidence.committed[topic]:
        if (record.partition, record.offset) not in dead:
            try:
                yield record, decode(contract, record.value or b"")
            except ValueError:
                yield record, None

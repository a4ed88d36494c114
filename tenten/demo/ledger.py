"""What the clerks write down themselves: the demonstration's own books, and sums over them.

Nothing here asks the product for an amount: what is added up is what was meant to be sold.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tenten.schemas.messages import TransactionKind

Sums = Mapping[tuple[str, str], Decimal]
"""Amounts by currency and payment method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """An order or a cash-and-carry as the clerk has written it down."""

    transaction_id: str
    kind: TransactionKind
    customer_id: str | None
    customer_pending: bool
    """Whether the customer had no account number when it was sold."""
    currency: str
    total: Decimal
    paid: Mapping[str, Decimal]
    """By payment method."""
    returned: bool
    delivered: bool


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The books of one store. Its clerk writes, anybody may read meanwhile."""

    customers: int = 0
    """How many were registered."""
    sold: list[Sold] = field(default_factory=list)

    @property
    def sales(self) -> list[Sold]:
        """The cash-and-carry."""
        return [one for one in self.sold if one.kind is TransactionKind.CASH_AND_CARRY]

    @property
    def orders(self) -> list[Sold]:
        """The orders."""
        return [one for one in self.sold if one.kind is TransactionKind.ORDER]


def paid_sums(sales: Iterable[Sold]) -> Sums:
    """What was paid, by currency and payment method."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for one in sales:
        for method, amount in one.paid.items():
            sums[one.currency, method] += amount
    return sums


def in_words(sums: Sums) -> str:
    """The sums, for people."""
    return ", ".join(
        f"{amount:,.2f} {currency} {method}".strip() for (currency, method), amount in sorted(sums.items())
    )

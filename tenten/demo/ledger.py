"""The clerks' own books of their sales, and sums over them, independent of the product's amounts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tenten.schemas.messages import TransactionKind

Sums = Mapping[tuple[str, str], Decimal]
"""Amounts by currency and payment method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """An order or a cash-and-carry sale in the clerk's books."""

    transaction_id: str
    kind: TransactionKind
    customer_id: str | None
    customer_pending: bool
    """Whether the customer had no account number at the time."""
    currency: str
    total: Decimal
    paid: Mapping[str, Decimal]
    """By payment method."""
    returned: bool
    delivered: bool


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The books of a store. Its clerk writes; other threads may read."""

    customers: int = 0
    """Number of registered customers."""
    sold: list[Sold] = field(default_factory=list)

    @property
    def sales(self) -> list[Sold]:
        """The cash-and-carry sales."""
        return [sold for sold in self.sold if sold.kind is TransactionKind.CASH_AND_CARRY]

    @property
    def orders(self) -> list[Sold]:
        """The orders."""
        return [sold for sold in self.sold if sold.kind is TransactionKind.ORDER]


def paid_sums(sales: Iterable[Sold]) -> Sums:
    """Payments by currency and payment method."""
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for sale in sales:
        for method, amount in sale.paid.items():
            sums[sale.currency, method] += amount
    return sums


def in_words(sums: Sums) -> str:
    """The sums as text."""
    return ", ".join(
        f"{amount:,.2f} {currency} {method}".strip() for (currency, method), amount in sorted(sums.items())
    )

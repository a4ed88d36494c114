"""An order or a sale as the fields of a form, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tenten.producers.till.open_channel import OpenChannel
from tenten.producers.till.search import search_customers
from tenten.producers.till.transaction_draft import Item
from tenten.rules.transaction_rules import AMOUNT_MAX, line_amount
from tenten.runtime.errors import TransactionRejected
from tenten.schemas.messages import Reason
from tenten.web.store_screen import reasons
from tenten.web.store_screen.languages import Language, entered_number

LINES_SHOWN: Final = 3
LINES_MAX: Final = 50
_PARTS: Final = ("sku", "quantity", "price")
CANDIDATES_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The lines of a form: those that are filled in, with the row of the form in which each is."""

    items: tuple[Item, ...]
    rows: tuple[int, ...]
    reasons: tuple[Reason, ...]

    def in_form(self, found: TransactionRejected) -> TransactionRejected:
        """The refusal with the rows of the form in its fields."""
        return TransactionRejected([replace(reason, field=self._field(reason.field)) for reason in found.reasons])

    def _field(self, field: str) -> str:
        part, bracket, rest = field.partition("[")
        number, _, name = rest.partition("]")
        if part != "lines" or not bracket or not number.isdecimal() or int(number) >= len(self.rows):
            return field
        return f"lines[{self.rows[int(number)]}]{name}"


def first_new_row(form: Mapping[str, str]) -> int:
    """The first line to fill in: of those that were just added, else of all."""
    return rows_of({"rows": form.get("rows", "")}) if "more" in form else 0


def rows_of(form: Mapping[str, str]) -> int:
    """How many lines the form has; one that is sent for more lines gets three more."""
    given = form.get("rows", "")
    rows = int(given) if given.isascii() and given.isdecimal() and len(given) < 4 else LINES_SHOWN
    return max(1, min(rows + (LINES_SHOWN if "more" in form else 0), LINES_MAX))


def lines_of(form: Mapping[str, str], language: Language) -> Lines:
    """The lines that are filled in. A quantity that is left empty is 1."""
    items, rows, found = [], [], []
    for row in range(rows_of(form)):
        texts = {part: form.get(f"lines[{row}].{part}", "").strip() for part in _PARTS}
        if not any(texts.values()):
            continue
        numbers: dict[str, Decimal] = {}
        for part, default in (("quantity", "1"), ("price", "")):
            number = entered_number(language, texts[part] or default)
            if number is None:
                code = "not_a_number" if texts[part] else "no_price"
                found.append(reasons.own(f"lines[{row}].{part}", code))
            numbers[part] = number or Decimal(0)
        items.append(Item(sku=texts["sku"], **numbers))
        rows.append(row)
    if not items:
        found.append(reasons.own("lines[0].sku", "no_lines"))
    return Lines(items=tuple(items), rows=tuple(rows), reasons=tuple(found))


def candidates(channel: OpenChannel, text: str) -> list[str]:
    """The ids of the customers that a clerk may mean; one more than are shown says that there are more."""
    return [view.customer_id for view in search_customers(channel, text, CANDIDATES_MAX + 1)] if text.strip() else []


def total_of(items: Sequence[Item], currency: str) -> Decimal:
    """What a customer pays for these items; 0 if a number is out of range, which the rules reject then."""
    if any(abs(number) >= AMOUNT_MAX for item in items for number in (item.quantity, item.price)):
        return Decimal(0)
    return sum((line_amount(item.quantity, item.price, currency) for item in items), Decimal(0))

"""Texts as a person can see them: what a store refuses from a till, beyond the rules that headquarters shares.

Imported files may have such texts. A customer that has one keeps it, and its other fields can be edited.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

from tenten.schemas.customer_fields import plain_texts
from tenten.schemas.messages import CustomerState, Reason, RetailTransaction

# NUL is refused by the rules. A street may have several lines, and a text attribute, too.
_CONTROL: Final = re.compile("[\x01-\x1f\x7f-\x9f]")
_LINES: Final = ("name", "city", "county", "state", "postal_code")
_NAMES: Final = ("first_name", "last_name", "organization_name")
_INVISIBLE: Final = ("Cc", "Cf", "Cn", "Zl", "Zp", "Zs")
"""The categories of Unicode whose characters show nothing."""


def customer_text_violations(before: CustomerState | None, state: CustomerState) -> Iterator[Reason]:
    """The reasons of the texts that are not as `before` (None: of a new customer all)."""
    texts = {name: value for name in _plain_texts() if (value := getattr(state, name))}
    # Nearly always; a printable text has no control characters, and shows something.
    for name, value in () if "".join(texts.values()).isprintable() else texts.items():
        if before is None or value != getattr(before, name):
            yield from _control(name, value)
            if name in _NAMES and all(unicodedata.category(character) in _INVISIBLE for character in value):
                yield Reason(field=name, code="invisible", text="The name has no visible character.")
    known = () if before is None else before.addresses
    for address in state.addresses:
        if address not in known:
            for name in _LINES:
                yield from _control(f"addresses/{address.address_id}/{name}", getattr(address, name))


def transaction_text_violations(transaction: RetailTransaction) -> Iterator[Reason]:
    """The reasons of the texts of an order or a sale."""
    yield from _control("delivery_mode", transaction.delivery_mode)
    for index, line in enumerate(transaction.lines):
        yield from _control(f"lines[{index}].sku", line.sku)
    for part in ("charges", "taxes"):
        for index, amount in enumerate(getattr(transaction, part)):
            yield from _control(f"{part}[{index}].code", amount.code)
    for index, payment in enumerate(transaction.payments):
        yield from _control(f"payments[{index}].method", payment.method)


@cache
def _plain_texts() -> tuple[str, ...]:
    return plain_texts()


def _control(field: str, value: str) -> Iterator[Reason]:
    if _CONTROL.search(value):
        text = "The text contains a control character, such as a line break."
        yield Reason(field=field, code="control_character", text=text)

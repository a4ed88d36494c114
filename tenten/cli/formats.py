"""How amounts, names of columns, times and other values are shown on a terminal. JSON is never formatted by these."""

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum


def heading(name: str) -> str:
    """A field's name as people read it.

    >>> heading("business_date")
    'business date'
    """
    return name.replace("_", " ")


def cell(value: object) -> str:
    """A value in a table or behind its name; `-` for None.

    >>> cell(None), cell(True), cell(12345), cell(["US", "CA"])
    ('-', 'yes', '12,345', 'US, CA')
    """
    match value:
        case None | bool():
            return {None: "-", True: "yes", False: "no"}[value]
        case int():
            return f"{value:,}"
        case datetime():
            return time(value)
        case Enum():
            return word(str(value.value))
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def word(value: str) -> str:
    """The value of an enumeration.

    >>> word("CASH_AND_CARRY")
    'cash and carry'
    """
    return value.lower().replace("_", " ")


def time(value: datetime) -> str:
    """A moment, to the second.

    >>> time(datetime(2026, 3, 31, 18, 5, 9, 123, tzinfo=UTC))
    '2026-03-31 18:05:09 UTC'
    """
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def amount(value: Decimal | str, currency: str) -> str:
    """An amount with its currency.

    >>> amount("9", "USD")
    '9.00 USD'
    """
    from tenten.rules.transaction_rules import money

    return f"{money(Decimal(value), currency)} {currency}"

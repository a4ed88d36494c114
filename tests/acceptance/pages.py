"""The how-to pages about accidents, and a company to which the accidents happen."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from tests.acceptance.cli import ROOT, Tenten, end
from tests.acceptance.test_readme import blocks_of


def commands_of(page: str) -> list[list[str]]:
    """The commands of each block of the page, in order."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return [[command.text for command in block.commands] for block in blocks_of(text)]


def type_in(company: Tenten, commands: list[str]) -> None:
    """Type the commands of a block; each must succeed."""
    for command in commands:
        tenten, *words = shlex.split(command)
        assert tenten == "tenten"
        company.ok(*words)


@contextmanager
def headquarters_running(company: Tenten) -> Iterator[None]:
    """Both workers of headquarters run during the block, and end with exit code 0."""
    with company.running("headquarters", "run") as customers, company.running("transactions", "run") as transactions:
        yield
        assert [end(customers), end(transactions)] == [0, 0], company.log


@contextmanager
def trading(company: Tenten) -> Iterator[None]:
    """Headquarters and the store houston run during the block, and end with exit code 0."""
    with headquarters_running(company), company.running("channel", "run", "houston") as houston:
        yield
        assert end(houston) == 0, company.log


def create(company: Tenten, name: str, channel: str = "houston") -> str:
    """Create a customer; its account number, for which the till waits."""
    words = ("customer", "create", channel, "--first-name", name, "--sync", "60", "--json")
    number = company.ok(*words).json["account_number"]
    assert isinstance(number, str)
    return number


def order(company: Tenten) -> str:
    """Record an order in houston; its id."""
    words = ("order", "create", "houston", "--line", "TEA:1:9", "--json")
    transaction_id = company.ok(*words).json["transaction_id"]
    assert isinstance(transaction_id, str)
    return transaction_id


def sales_order(company: Tenten, order_id: str) -> str | None:
    """The number of an order, None while it has none."""
    number = company.ok("order", "show", "houston", order_id, "--json").json["sales_order"]
    assert number is None or isinstance(number, str)
    return number


def numbers(company: Tenten, *names: str, channel: str = "houston") -> list[str | None]:
    """The account numbers of the customers with these first names."""
    found = [company.ok("customer", "search", channel, name, "--json").json for name in names]
    return [customers[0]["account_number"] if customers else None for customers in found]

"""The pages about accidents at headquarters: the accident happens, and the page's own commands lead out of it."""

import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

from tenten.runtime.settings import Settings
from tenten.schemas.topics import CUSTOMERS
from tests.acceptance.cli import ROOT, Tenten, wait_until
from tests.acceptance.test_readme import blocks_of
from tests.restores import back_up, delete_topic, restore


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
def trading(company: Tenten) -> Iterator[None]:
    """Headquarters and the store houston run during the block."""
    with (
        company.running("headquarters", "run"),
        company.running("transactions", "run"),
        company.running("channel", "run", "houston"),
    ):
        yield


def create(company: Tenten, name: str) -> str:
    """Create a customer in houston; its account number."""
    words = ("customer", "create", "houston", "--first-name", name, "--sync", "60", "--json")
    number = company.ok(*words).json["account_number"]
    assert isinstance(number, str)
    return number


def test_restored_database(ready_company: Tenten, headquarters_url: str) -> None:
    """Headquarters' database is put back to a copy: numbers that were given since then stay with their customers."""
    company = ready_company
    first, second = commands_of("restored-database.md")
    # given
    with trading(company):
        create(company, "Ada")
    backup = back_up(headquarters_url)
    with trading(company):
        create(company, "Ben")
        order = company.ok("order", "create", "houston", "--line", "TEA:1:9", "--json").json["transaction_id"]
        wait_until(lambda: _sales_order(company, order) is not None, "the sales order")
    restore(headquarters_url, backup)
    # when
    type_in(company, first)
    with trading(company):
        # then
        assert create(company, "Cy") == "C-00000003"
        type_in(company, second)
    assert _sales_order(company, order) == "SO-00000001"
    names = [company.ok("customer", "search", "houston", name, "--json").json for name in ("ada", "ben", "cy")]
    assert [found[0]["account_number"] for found in names] == ["C-00000001", "C-00000002", "C-00000003"]


def _sales_order(company: Tenten, order: str) -> str | None:
    number = company.ok("order", "show", "houston", order, "--json").json["sales_order"]
    assert number is None or isinstance(number, str)
    return number


def test_recreated_topic(ready_company: Tenten) -> None:
    """`customers` is deleted: no store loses a customer, and after the commands of the page all is as before."""
    company = ready_company
    first, second = commands_of("recreated-topic.md")
    # given
    with trading(company):
        for name in ("Ada", "Ben"):
            create(company, name)
    document = (company.directory / "tenten.toml").read_text()
    settings = Settings.model_validate(tomllib.loads(document), context={"directory": company.directory})
    delete_topic(settings, CUSTOMERS)
    # when
    type_in(company, first)
    with trading(company):
        create(company, "Cy")
        type_in(company, second)
    # then
    status = company.ok("channel", "status", "houston", "--json").json
    assert (status["customers"], status["pending"], status["unsettled"]) == (3, 0, 0)
    assert company.ok("headquarters", "verify", "--json").json["customers"] == 3

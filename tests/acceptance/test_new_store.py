"""The pages about a store that headquarters does not know, and about account numbers that are used up."""

import re
from pathlib import Path
from typing import Final

import psycopg

from tests.acceptance.cli import Tenten, wait_until
from tests.acceptance.faulty import make, plain
from tests.acceptance.pages import commands_of, create, headquarters_running, numbers, type_in

DALLAS: Final = """
[channels.dallas]
legal_entity = "usrt"
database = "sqlite:///dallas.db"
"""


def test_new_store_and_exhausted_numbers(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """Headquarters lacks a store, and then numbers; the commands of each page lead out, without a hand in the store."""
    kafka = plain(bootstrap_servers)
    company = make(tmp_path / "company", prefix=prefix, kafka=kafka, headquarters=headquarters_url)
    give_format(company, "usrt-#")
    stores = make(tmp_path / "stores", prefix=prefix, kafka=kafka, channels={"houston": "usrt", "dallas": "usrt"})
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "headquarters")
    stores.ok("database", "upgrade", "all")
    of_dallas = ("customer", "create", "dallas", "--first-name")
    (apply, (status, of_channel)), (widen, (status_again,)) = map(commands_of, ("new-store.md", "exhausted-numbers.md"))
    with stores.running("channel", "run", "houston"), stores.running("channel", "run", "dallas"):
        # given: a store that headquarters does not know, and one number
        stores.ok(*of_dallas, "Ada")
        with headquarters_running(company):
            wait_until(lambda: held(headquarters_url) == {"unknown_channel": 1}, "the held event")
            # when
            toml = company.directory / "tenten.toml"
            toml.write_text(toml.read_text() + DALLAS)
            type_in(company, apply)
            # then
            wait_until(lambda: numbers(stores, "ada", channel="dallas") == ["usrt-8"], "the account number")
            assert held(headquarters_url) == {}
            type_in(stores, [of_channel])

            # given
            assert create(stores, "Ben") == "usrt-9"
            stores.ok(*of_dallas, "Cy")
            wait_until(lambda: held(headquarters_url) == {"number_sequence_used_up": 1}, "the held event")
            # when
            give_format(company, "usrt-##")
            type_in(company, widen)
            # then
            wait_until(lambda: numbers(stores, "cy", channel="dallas") == ["usrt-10"], "the account number")
            assert status == status_again
            wait_until(lambda: company.run(*status.split()[1:]).code == 0, "a healthy status")


def give_format(company: Tenten, number_format: str) -> None:
    """Change the format of account numbers in the settings; 8 is the first number."""
    toml = company.directory / "tenten.toml"
    numbering = f'account_numbers = {{ format = "{number_format}", next = 8, continuous = true }}'
    toml.write_text(re.sub("account_numbers = .*", numbering, toml.read_text()))


def held(url: str) -> dict[str, int]:
    """The number of held events by cause."""
    with psycopg.connect(url) as connection:
        return dict(
            connection.execute(
                "SELECT code, count(*) FROM held_events WHERE judged_at IS NULL GROUP BY code"
            ).fetchall()
        )

"""AdventureWorks' customers, imported in one of three stores, numbered, and distributed to all stores.

The file has no addresses; each customer gets a city of AdventureWorks' geography file in turn. All lines are
valid. `make test` imports the first thousand customers, `make soak` all 18,148. The files are expected beside the
checkout, in `../shared/data`.
"""

import csv
import itertools
import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.acceptance.cli import ROOT, Tenten, wait_until
from tests.conftest import NewDatabase

DATA: Final = ROOT.parent / "shared" / "data"
CUSTOMERS: Final = DATA / "adventureworks-customers.csv"
GEOGRAPHY: Final = DATA / "adventureworks-geography.csv"
ALL: Final = 18_148

TOML: Final = """
prefix = "{prefix}"

[kafka]
"bootstrap.servers" = "{bootstrap_servers}"

[headquarters]
database = "{headquarters}"

[legal_entities.usrt]
country = "US"
currency = "USD"
language = "en-US"
account_numbers = {{ format = "AW########", next = 1, continuous = true }}

[channels.houston]
legal_entity = "usrt"
database = "sqlite:///houston.db"

[channels.boston]
legal_entity = "usrt"
database = "sqlite:///boston.db"

[channels.chicago]
legal_entity = "usrt"
database = "{chicago}"
"""


@pytest.fixture
def customers_file(tmp_path: Path, count: int) -> Path:
    """The first customers, each with a city; in the encoding of the original, which is not UTF-8."""
    missing = [path.name for path in (CUSTOMERS, GEOGRAPHY) if not path.exists()]
    if missing:
        text = f"{', '.join(missing)} must be in {DATA}: AdventureWorks' customers are not part of this repository"
        if "CI" in os.environ:
            pytest.fail(text)
        pytest.skip(text)
    path = tmp_path / "adventureworks.csv"
    customers = _rows(CUSTOMERS, "cp1252")[:count]
    cities = _rows(GEOGRAPHY, "utf-8")
    with path.open("w", encoding="cp1252", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, [*customers[0], *cities[0]])
        writer.writeheader()
        writer.writerows(customer | city for customer, city in zip(customers, itertools.cycle(cities), strict=False))
    return path


@pytest.fixture
def chicago(new_database: NewDatabase) -> str:
    """The database of the third store."""
    return new_database()


@pytest.fixture
def company(tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str, chicago: str) -> Tenten:
    """Headquarters and three stores, two with a SQLite file and one with PostgreSQL; nothing runs yet."""
    toml = TOML.format(
        prefix=prefix, bootstrap_servers=bootstrap_servers, headquarters=headquarters_url, chicago=chicago
    )
    (tmp_path / "tenten.toml").write_text(toml)
    tenten = Tenten(directory=tmp_path)
    tenten.ok("topics", "apply")
    tenten.ok("database", "upgrade", "all")
    return tenten


class Store:
    """Reads a store's database without the code under test."""

    def __init__(self, database: Path | str) -> None:
        self._database = database

    def select(self, query: str) -> list[Any]:
        """The rows of one query."""
        if isinstance(self._database, str):
            with psycopg.connect(self._database) as server:
                return server.execute(query.encode()).fetchall()
        file = sqlite3.connect(self._database, timeout=30)
        try:
            return file.execute(query).fetchall()
        finally:
            file.close()

    def numbered(self) -> int:
        """Number of customers with an account number."""
        return int(self.select("SELECT count(account_number) FROM customers")[0][0])

    def unsettled(self) -> int:
        """Number of unsettled changes of this store."""
        return int(self.select("SELECT count(*) FROM outbox WHERE settled_at IS NULL")[0][0])

    def customers(self, *ids: str) -> dict[str, tuple[str, tuple[str, str, str, str]]]:
        """By customer id: account number; first name, last name, e-mail, city. Default: all customers."""
        query = """
            SELECT c.customer_id, c.account_number, c.first_name, c.last_name, e.value, a.city
            FROM customers c
            LEFT JOIN customer_contacts e ON e.customer_id = c.customer_id AND e.contact_id = c.primary_email
            LEFT JOIN customer_addresses a ON a.customer_id = c.customer_id AND a.address_id = c.primary_address
        """
        if ids:
            query += f"WHERE c.customer_id IN ({', '.join(map(repr, ids))})"
        rows = self.select(query)
        found = {str(row[0]): (row[1], (row[2], row[3], row[4], row[5])) for row in rows}
        assert len(found) == len(rows), "a customer has more than one number or address"
        return found


@pytest.mark.parametrize("count", [1_000, pytest.param(ALL, marks=pytest.mark.soak)])
def test_customers_of_a_file_reach_every_store(company: Tenten, chicago: str, customers_file: Path, count: int) -> None:
    """Each customer of the file gets one account number, the same in every store, and the same file again changes
    nothing, not even what clerks have edited meanwhile.
    """
    # given
    houston, boston = Store(company.directory / "houston.db"), Store(company.directory / "boston.db")
    stores = (houston, boston, Store(chicago))
    wanted = Counter(
        (row["FirstName"].strip(), row["LastName"].strip(), row["EmailAddress"].strip().lower(), row["City"].strip())
        for row in _rows(customers_file, "cp1252")
    )
    assert wanted.total() == count
    command = ("customer", "import", "houston", str(customers_file), "--key", "CustomerKey", "--encoding", "cp1252")
    with (
        company.running("headquarters", "run"),
        company.running("channel", "run", "houston"),
        company.running("channel", "run", "boston"),
        company.running("channel", "run", "chicago"),
    ):
        # when
        imported = company.ok(*command, "--json").json
        wait_until(lambda: all(store.numbered() == count for store in stores), "every number in every store")
        # then
        assert (imported["read"], imported["created"], imported["edited"], imported["repeated"]) == (count, count, 0, 0)
        assert imported["refused"] == []
        numbers = {customer_id: number for customer_id, (number, _) in houston.customers().items()}
        assert set(numbers.values()) == {f"AW{number:08d}" for number in range(1, count + 1)}
        for store in stores:
            customers = store.customers()
            assert Counter(texts for _, texts in customers.values()) == wanted
            assert {customer_id: number for customer_id, (number, _) in customers.items()} == numbers

        # given that clerks correct two customers, one where the file was imported and one elsewhere
        here, there = itertools.islice(numbers, 2)
        company.ok("customer", "edit", "houston", here, "--set", "last_name=Lovelace")
        company.ok("customer", "edit", "boston", there, "--set", "email=ada@example.com", "--set", "city=London")

        def edited(store: Store) -> bool:
            now = store.customers(here, there)
            return now[here][1][1] == "Lovelace" and now[there][1][2:] == ("ada@example.com", "London")

        wait_until(lambda: all(edited(store) for store in stores), "the edits in every store")
        wait_until(lambda: all(store.unsettled() == 0 for store in stores), "a reply to every edit")
        before = [store.customers() for store in stores]
        # when
        again = company.ok(*command, "--json").json
        # then
        assert (again["read"], again["created"], again["edited"], again["repeated"]) == (count, 0, 0, count)
        assert again["refused"] == []
        assert houston.unsettled() == 0
        assert [store.customers() for store in stores] == before
    assert company.ok("headquarters", "verify", "--json").json == {
        "customers": count,
        "missing": [],
        "surplus": [],
        "different": [],
    }


def _rows(path: Path, encoding: str) -> list[dict[str, str]]:
    with path.open(encoding=encoding, newline="") as file:
        return list(csv.DictReader(file))

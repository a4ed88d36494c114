"""Full disks of a till, a store's server and headquarters: nothing is half written, and work continues with space."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from tenten.local import delete_postgres, start_postgres, stop_postgres
from tenten.local.postgres import address_of
from tenten.runtime.retry import FULL_ADVICE
from tests.acceptance.cli import ROOT, Tenten, wait_until
from tests.acceptance.faulty import complaints, make, pass_by, plain, refuses
from tests.acceptance.pages import commands_of, create, numbers, order, sales_order, trading, type_in
from tests.conftest import NewDatabase
from tests.services import directory_for_server
from tests.small_disk import SmallDisk, small_disk

FULL_SECONDS: Final = 2.0
"""How long headquarters' disk stays full: long enough for several retries."""

WORDS: Final = ("customer", "create", "houston", "--first-name")

FULL_DISK: Final = """
from sqlalchemy import Engine, event
event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = {pages}"))
"""
"""Python runs it at the start of a command: then no SQLite file can grow, as on a full disk."""

HOUSTON_ROWS: Final = (
    "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM customer_addresses), (SELECT count(*) FROM outbox)"
)


def test_full_disk_of_a_till_is_reported_and_nothing_is_written(tmp_path: Path) -> None:
    """The message says that nothing was written, and nothing was; with space the same command works."""
    # given
    store = make(tmp_path, prefix="", kafka="")
    store.ok("database", "upgrade", "all")
    store.ok("customer", "create", "houston", "--first-name", "Ada")
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        before = file.execute(HOUSTON_ROWS).fetchone()
    addresses = [word for number in range(30) for word in ("--add-address", f"street={number} {'Long Street ' * 15}")]
    words = ("customer", "create", "houston", "--first-name", "Ben", *addresses)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "sitecustomize.py").write_text(FULL_DISK.format(pages=pages))
    # when
    refused = store.run_interpreter(*words, PYTHONPATH=f"{tmp_path / 'full'}{os.pathsep}{ROOT}")
    # then
    refuses(refused, 1, "no space is left", "nothing was written")
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        assert file.execute(HOUSTON_ROWS).fetchone() == before == (1, 0, 1)
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # when
    store.ok(*words)
    # then
    with closing(sqlite3.connect(tmp_path / "houston.db")) as file:
        assert file.execute(HOUSTON_ROWS).fetchone() == (2, 30, 2)


def test_full_disk_of_a_store_server_is_reported_and_nothing_is_written(
    tmp_path: Path, new_database: NewDatabase
) -> None:
    """The same with PostgreSQL: without space for the event the customer is not written either."""
    # given
    url = new_database()
    store = make(tmp_path, prefix="", kafka="", database=url)
    store.ok("database", "upgrade", "all")
    words = ("customer", "create", "houston", "--first-name", "Ada", "--street", "1 Main Street", "--city", "Houston")
    # when
    with full(url, "outbox"):
        refuses(store.run(*words), 1, "no space is left", "nothing was written")
    # then
    with psycopg.connect(url) as server:
        assert server.execute(HOUSTON_ROWS).fetchone() == (0, 0, 0)
    # when
    store.ok(*words)
    # then
    with psycopg.connect(url) as server:
        assert server.execute(HOUSTON_ROWS).fetchone() == (1, 1, 1)


def test_full_disks_of_headquarters_and_of_a_store(tmp_path: Path, bootstrap_servers: str, prefix: str) -> None:
    """Headquarters' disk is full, then the store's: no process ends, each names the remedy, and the till says that it
    could not write. With room everything that the till had confirmed goes through, and nothing else.
    """
    of_store, of_headquarters = commands_of("full-disk.md")
    with server_on_small_disk() as (url, disk), small_disk(tmp_path / "till", 16) as till:
        database = f"sqlite:///{till.directory}/houston.db"
        kafka = plain(bootstrap_servers)
        company = make(tmp_path / "company", prefix=prefix, kafka=kafka, headquarters=url, database=database)
        company.ok("topics", "apply")
        company.ok("database", "upgrade", "all")
        with trading(company):
            # given
            expected = ["usrt-00000001"]
            assert create(company, "Ada") == "usrt-00000001"
            # when
            disk.fill()
            enter(company, "Ben")
            wait_until(lambda: says(company, "disk_full", "process=headquarters", FULL_ADVICE), "headquarters' warning")
            ordered = order(company)
            # then
            pass_by(FULL_SECONDS)
            assert numbers(company, "ada", "ben") == [*expected, None]

            # when: the reply finds the store's disk full
            till.fill()
            disk.make_room()
            wait_until(lambda: says(company, "disk_full", "channel=houston", FULL_ADVICE), "the store's warning")
            # then
            refuses(company.run(*WORDS, "Cy"), 1, "no space is left", "nothing was written")
            # when
            till.make_room()
            # then
            wait_until(lambda: numbers(company, "ben") == ["usrt-00000002"], "the account number")
            wait_until(lambda: sales_order(company, ordered) is not None, "the sales order")
            assert create(company, "Dee") == "usrt-00000003"
            assert company.ok("customer", "search", "houston", "cy", "--json").json == []
            type_in(company, of_store)
            wait_until(lambda: company.run("status").code == 0, "a healthy status")
            type_in(company, of_headquarters)
            assert len(complaints_of(company, "process=headquarters")) == 1, company.log
        # when: the first process to open the database
        till.fill()
        # then
        refuses(company.run(*WORDS, "Eve"), 1, "no space is left", "nothing was written")


def enter(company: Tenten, name: str) -> None:
    """Create a customer with so many addresses that no table has room for them."""
    addresses = [word for number in range(30) for word in ("--add-address", f"street={number} {'Long Street ' * 15}")]
    company.ok(*WORDS, name, *addresses)


def says(company: Tenten, *words: str) -> bool:
    """Whether a line of the processes' log has all of these words."""
    return any(all(word in line for word in words) for line in company.log.splitlines())


def complaints_of(company: Tenten, process: str) -> list[str]:
    """The warnings of a process."""
    return [line for line in complaints(company) if process in line]


@contextmanager
def server_on_small_disk() -> Iterator[tuple[str, SmallDisk]]:
    """Headquarters' database, alone on a small disk: its server has its write-ahead log elsewhere."""
    with directory_for_server("full") as directory:
        try:
            server = start_postgres(directory / "server", settings={"fsync": "off"})
            owner = (directory / "server" / "data").stat().st_uid
            with small_disk(directory / "disk", 64, owner=owner) as disk:
                tables = disk.directory / "tables"
                tables.mkdir(mode=0o700)
                os.chown(tables, owner, -1)
                with psycopg.connect(server.postgresql, autocommit=True) as connection:
                    connection.execute(f"CREATE TABLESPACE small LOCATION '{tables}'".encode())
                    connection.execute("CREATE DATABASE headquarters TABLESPACE small")
                try:
                    yield address_of(server.postgresql, "headquarters"), disk
                finally:
                    stop_postgres(directory / "server")
        finally:
            delete_postgres(directory / "server")


@contextmanager
def full(url: str, table: str) -> Iterator[None]:
    """A PostgreSQL server that refuses every row of a table with its error code for a full disk."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        server.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()".encode())
        try:
            yield
        finally:
            server.execute("DROP FUNCTION full_disk CASCADE")

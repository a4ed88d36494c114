"""Full disks of a till, a store's server and headquarters: nothing is half written, and work continues with space."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from tests.acceptance.cli import ROOT, wait_until
from tests.acceptance.faulty import complaints, create, make, numbered, pass_by, plain, refuses
from tests.conftest import NewDatabase

FULL_SECONDS: Final = 3.0
"""How long headquarters' disk stays full: long enough for several retries."""


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
    refused = store.run(*words, PYTHONPATH=f"{tmp_path / 'full'}{os.pathsep}{ROOT}")
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


def test_full_disk_of_headquarters_is_waited_for(
    tmp_path: Path, bootstrap_servers: str, prefix: str, headquarters_url: str
) -> None:
    """No event is rejected: headquarters logs once that it waits, and assigns the number when there is space."""
    company = make(tmp_path, prefix=prefix, kafka=plain(bootstrap_servers), headquarters=headquarters_url)
    company.ok("topics", "apply")
    company.ok("database", "upgrade", "all")
    with company.running("headquarters", "run") as hq, company.running("channel", "run", "houston"):
        # when
        with full(headquarters_url, "synchronization_log"):
            create(company, "Ada")
            wait_until(lambda: bool(complaints(company)), "headquarters' warning")
            pass_by(FULL_SECONDS)
            # then
            assert hq.poll() is None, company.log
            assert len(complaints(company)) == 1, complaints(company)
            assert numbered(company) == set()
        wait_until(lambda: numbered(company) == {"Ada"}, "the number")


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

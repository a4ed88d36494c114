"""Headquarters and stores of both kinds, first run by release 0.1.0, then by this one; and their databases as rows."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import NullPool, create_engine, make_url, text

from tests.acceptance.cli import Tenten
from tests.conftest import NewDatabase
from tests.settings_file import USRT, channel, headquarters, kafka
from tests.upgrade.released import Released

SECONDS_MAX: Final = 120.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One store and the address of its database."""

    name: str
    url: str

    def customers(self) -> dict[str, Row]:
        """Its customers by id."""
        return by_id(rows(self.url, "SELECT * FROM customers"), "customer_id")

    def unsettled(self) -> list[Row]:
        """Events and transactions that headquarters has not settled."""
        return rows(self.url, "SELECT * FROM outbox WHERE settled_at IS NULL")

    def transactions(self) -> dict[str, Row]:
        """Its orders and sales by id."""
        return by_id(rows(self.url, "SELECT * FROM transactions"), "transaction_id")

    def ends_of_day(self) -> list[str]:
        """The status of each end of day."""
        return [row["status"] for row in rows(self.url, "SELECT status FROM end_of_days")]

    def resync_requests(self) -> list[str]:
        """Why a resync is requested."""
        return [row["reason"] for row in rows(self.url, "SELECT reason FROM resync_requests")]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A company in a directory, which both releases can run."""

    old: Released
    new: Tenten
    headquarters: str
    """The address of headquarters' database."""
    stores: Mapping[str, Store]

    @property
    def every_store(self) -> list[Store]:
        """The stores in the order of the settings."""
        return list(self.stores.values())

    def customers(self) -> dict[str, Row]:
        """The customers of headquarters by id, erased ones too."""
        return by_id(rows(self.headquarters, "SELECT * FROM customers"), "customer_id")

    def sold(self) -> dict[str, Row]:
        """Orders and sales at headquarters by id."""
        return by_id(rows(self.headquarters, "SELECT * FROM retail_transactions"), "transaction_id")

    def logged(self) -> dict[str, Row]:
        """The events that headquarters has judged, by id."""
        return by_id(rows(self.headquarters, "SELECT * FROM synchronization_log"), "event_id")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {SECONDS_MAX} s\n{self._logs()}"
            time.sleep(0.05)

    def wait_until_stores(self, condition: Callable[[Store], bool], what: str) -> None:
        """Wait until the condition holds for every store."""
        self.wait_until(lambda: all(condition(store) for store in self.every_store), what)

    def _logs(self) -> str:
        logs = (self.old.directory / name for name in ("released.log", "processes.log"))
        return "\n".join(log.read_text()[-4000:] for log in logs if log.exists())

    def replies_due(self) -> int:
        """Replies to transactions that are not sent."""
        return sum(row["answer_count"] for row in rows(self.headquarters, "SELECT answer_count FROM replies_due"))


def company(
    directory: Path, bootstrap_servers: str, prefix: str, new_database: NewDatabase, stores: Mapping[str, str]
) -> World:
    """A company whose stores have a database of this kind each, `sqlite` or `postgresql`; nothing is created yet."""
    database = new_database()
    urls = {
        name: new_database() if kind == "postgresql" else f"sqlite:///{directory / name}.db"
        for name, kind in stores.items()
    }
    own = f'prefix = "{prefix}"\n' + kafka(bootstrap_servers, session_timeout_ms="6000", heartbeat_interval_ms="1500")
    entity = headquarters(database) + USRT
    (directory / "tenten.toml").write_text(own + entity + "".join(channel(name, url) for name, url in urls.items()))
    (directory / "without_stores.toml").write_text(own + entity)
    return World(
        old=Released(directory=directory),
        new=Tenten(directory=directory),
        headquarters=database,
        stores={name: Store(name=name, url=url) for name, url in urls.items()},
    )


def rows(url: str, query: str) -> list[Row]:
    """The rows that a query finds in a database of either kind; GUIDs as text."""
    address = make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(address, poolclass=NullPool)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def by_id(found: list[Row], key: str) -> dict[str, Row]:
    """The rows by the text of their id."""
    return {str(row[key]): row for row in found}


@contextmanager
def advisory_lock(url: str, name: str) -> Iterator[None]:
    """Hold an advisory lock of tenten's for the duration of the block."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
        yield

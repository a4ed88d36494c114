"""A look into each store now and then: which customers it shows, in which version and with which account number."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tenten.producers import OpenChannel
from tenten.schemas.tables import channel
from tests.faults.journal import Journal
from tests.threads import Worker

_LOOK_SECONDS: Final = 10.0


@contextmanager
def stores_observed(tills: Mapping[str, OpenChannel], journal: Journal) -> Iterator[None]:
    """Note versions and account numbers in the journal during the block."""
    observer = Worker(partial(_observe, tills, journal))
    try:
        yield
    finally:
        observer.stop()
    observer.check()


def _observe(tills: Mapping[str, OpenChannel], journal: Journal, stop: Event) -> None:
    table = channel.customers
    query = select(table.c.customer_id, table.c.version, table.c.account_number)
    while not stop.wait(_LOOK_SECONDS):
        for name, till in tills.items():
            try:
                with till.reading() as connection:
                    rows = connection.execute(query).all()
            except DBAPIError:
                # The store's database is away.
                continue
            for row in rows:
                _note(journal, name, str(row.customer_id), row.version, row.account_number)


def _note(journal: Journal, store: str, customer_id: str, version: int, account_number: str | None) -> None:
    versions = journal.versions_seen[store, customer_id]
    if not versions or versions[-1] != version:
        versions.append(version)
    if account_number is not None:
        journal.numbers_seen[customer_id].add(account_number)

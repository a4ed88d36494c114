"""A store's database as an onlooker sees it: its own connection, plain statements."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

Rows = list[tuple[Any, ...]]
Ask = Callable[..., Rows]
"""Runs a statement, with parameters or without, in a transaction of its own unless one is open; gives its rows."""


@contextmanager
def onlooker(url: str) -> Iterator[Ask]:
    """A connection to the database at this plain address. Its statements take parameters as the driver wants them."""
    address = make_url(url)
    if address.drivername == "postgresql":
        with psycopg.connect(url, autocommit=True) as server:
            yield lambda statement, parameters=None: _rows(server, statement, parameters)
    else:
        with closing(sqlite3.connect(address.database or "", timeout=10, isolation_level=None)) as file:
            yield lambda statement, parameters=(): file.execute(statement, parameters).fetchall()


def _rows(server: psycopg.Connection[Any], statement: str, parameters: Sequence[object] | None) -> Rows:
    cursor = server.execute(statement.encode(), parameters)
    return cursor.fetchall() if cursor.description else []

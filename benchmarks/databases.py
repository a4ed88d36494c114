"""Observe a store's database with plain statements on a separate connection."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

Rows = list[tuple[Any, ...]]
Ask = Callable[..., Rows]
"""Runs a statement, with optional parameters, in autocommit mode unless a transaction is open; returns its rows."""


@contextmanager
def observer(url: str) -> Iterator[Ask]:
    """Connect to the database with this URL. Parameters have the style of the driver: `%s`, or `?` on SQLite."""
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

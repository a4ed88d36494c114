"""Transactions on the driver's own connections, for what runs so often that SQLAlchemy's share would be the largest."""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from tenten.sql.engine import begin_immediate, without_waiting
from tenten.sql.sqlite_queue import writer_queue


def postgresql_statement(engine: Engine, statement: str, parameters: Sequence[Any]) -> None:
    """Execute one prepared statement as a transaction of its own: one round trip.

    If the connection breaks, the statement is executed once more on another one, even if it may have been committed:
    unique keys must make it repeatable.
    Raises: psycopg's errors; SQLAlchemy's for a connection that cannot be opened.
    """
    if not _executed(engine, statement, parameters, is_last_attempt=False):
        _executed(engine, statement, parameters, is_last_attempt=True)


def _executed(engine: Engine, statement: str, parameters: Sequence[Any], *, is_last_attempt: bool) -> bool:
    """Execute the statement; False if the connection broke."""
    import psycopg

    pooled = engine.raw_connection()
    try:
        driver: Any = pooled.driver_connection
        driver.autocommit = True
        try:
            driver.execute(statement, parameters, prepare=True)
        except psycopg.OperationalError:
            if is_last_attempt or not driver.closed:
                raise
            pooled.invalidate()
            return False
        finally:
            if not driver.closed:
                driver.autocommit = False
    finally:
        pooled.close()
    return True


@contextmanager
def sqlite_transaction(engine: Engine) -> Generator[sqlite3.Connection]:
    """A writing transaction, committed at the end of the block. Raises: `sqlite3.Error`."""
    pooled = engine.raw_connection()
    try:
        driver: Any = pooled.driver_connection
        with writer_queue(str(engine.url.database)).turn():
            if not begin_immediate(driver):
                with without_waiting(driver):
                    driver.execute("BEGIN IMMEDIATE")
        try:
            yield driver
            driver.commit()
        except BaseException:
            driver.rollback()
            raise
    finally:
        pooled.close()

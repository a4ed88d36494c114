"""Connections to a channel's database for the calls of a till, with errors that a clerk can read."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.error_codes import error_code, is_full
from tenten.runtime.errors import DatabaseFull, DatabaseRefused
from tenten.runtime.failpoints import failpoint
from tenten.runtime.tracing import span
from tenten.sql.postgresql_driver import driver_error


class AlreadyRecorded(Exception):
    """Another process has recorded the same event at the same moment."""


@contextmanager
def writing(channel: OpenChannel) -> Iterator[Connection]:
    """One SQL transaction, committed at the end of the block.

    Raises: `AlreadyRecorded`; `DatabaseRefused`, and its subclass `DatabaseFull`, when nothing could be written.
    """
    with span("write", channel=channel.name), recording(channel):
        with channel.engine.begin() as connection:
            yield connection
            failpoint("customers.before_commit")
        failpoint("customers.after_commit")


@contextmanager
def recording(channel: OpenChannel) -> Iterator[None]:
    """Errors of a block that writes something once.

    Raises: `AlreadyRecorded`; `DatabaseRefused`, and its subclass `DatabaseFull`, when nothing could be written.
    """
    try:
        with _readable_errors(channel):
            yield
    except Exception as error:
        if not _is_duplicate(error):
            raise
        raise AlreadyRecorded from error


@contextmanager
def reading(channel: OpenChannel) -> Iterator[Connection]:
    """A read-only view of one state. Raises: `DatabaseRefused` when the database does not answer."""
    with _readable_errors(channel), channel.reading() as connection:
        yield connection


@contextmanager
def _readable_errors(channel: OpenChannel) -> Iterator[None]:
    """Replace the database's message, which quotes the statement's parameters and so personal data."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, driver_error()) as error:
        if _is_duplicate(error):
            raise
        if is_full(error):
            raise DatabaseFull(
                f"no space is left for the database of channel {channel.name}: nothing was written; make room"
            ) from error
        code = error_code(error) or "no connection"
        raise DatabaseRefused(
            f"the database of channel {channel.name} is not available or rejected the statement ({code}): "
            "nothing was written"
        ) from error


def _is_duplicate(error: Exception) -> bool:
    """Whether a unique key was violated: SQLAlchemy's error, or a driver's own."""
    driver = sys.modules.get("psycopg")
    return isinstance(error, IntegrityError | sqlite3.IntegrityError) or (
        driver is not None and isinstance(error, driver.IntegrityError)
    )

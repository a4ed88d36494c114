"""Errors of PostgreSQL that neither waiting nor rejecting a record resolves: what they mean, and the way out."""

from typing import Final

from tenten.runtime.error_codes import error_code, postgresql_error_in
from tenten.runtime.errors import DatabaseRefused

_ACCESS_CLASS: Final = "42"
"""SQLSTATE class of missing tables, columns and privileges. The messages name them, and have no data of rows."""

_REMEDIES: Final = {
    "42501": "the database user lacks a privilege: grant it SELECT, INSERT, UPDATE and DELETE "
    "on all tables, and USAGE on the schema and its sequences",
    "42P01": "a table is missing: run `tenten database upgrade`",
    "42703": "a column is missing: run `tenten database upgrade`",
    "25006": "the database is read-only, perhaps a standby server: connect to the primary",
    "P0001": "a trigger of this database raised an error; one that is to reject a single record must use an ERRCODE of "
    "class 23, such as check_violation",
}
"""By SQLSTATE: the cause and the remedy."""

_OTHER: Final = "see PostgreSQL's log, and correct the database"


def database_refusal(error: BaseException, work: str) -> DatabaseRefused:
    """The error that stops a worker whose work the database refused for a cause that lies outside of the records."""
    return DatabaseRefused(
        f"headquarters' database refused {work} with SQLSTATE {error_code(error)}, and nothing of it was stored or "
        f"rejected: {remedy_of(error) or _OTHER}; then start the worker again"
    )


def remedy_of(error: BaseException) -> str | None:
    """The cause and the remedy of an error of PostgreSQL; None if they are not known."""
    state = error_code(error) or ""
    remedy = _REMEDIES.get(state)
    cause = postgresql_error_in(error)
    named = cause.diag.message_primary if cause is not None and state[:2] == _ACCESS_CLASS else None
    return f"{named}; {remedy}" if named and remedy else remedy

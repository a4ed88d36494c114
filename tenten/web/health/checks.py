"""The checks of `/readyz`."""

from typing import Literal

from sqlalchemy import Engine

from tenten.failure_messages import explain
from tenten.sql.migrations import check_version


def database_problem(engine: Engine, tables: Literal["headquarters", "channel"]) -> str | None:
    """Why the database cannot be used; None if it answers and has the tables of this release. Blocks for some seconds
    while it does not answer.
    """
    try:
        check_version(engine, tables)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        return sentence
    return None

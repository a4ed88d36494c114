"""The checks of `/readyz`.

A store is ready without a broker: it sells, and sends later. A worker of headquarters is ready when it has its
database and has joined its group.
"""

from typing import Literal

from sqlalchemy import Engine

from tenten.failure_messages import explain
from tenten.runtime.counting import numbers
from tenten.sql.migrations import check_version


def database_problem(engine: Engine, tables: Literal["headquarters", "channel"]) -> str | None:
    """Why the database cannot be used; None if it answers and has the tables of this release. Blocks for some seconds
    while it does not answer.
    """
    try:
        check_version(engine, tables)
    except Exception as error:
        if explain(error) is None:
            raise
        # Not the sentence itself, which names server and user: anybody may ask.
        return "the database does not answer, or is not one of this release: see `tenten doctor`"
    return None


def group_problem() -> str | None:
    """Why this worker does not work yet; None once its group has let it in. A worker without partitions is ready: it
    takes over when another one ends.
    """
    return None if numbers("tenten_assigned_partitions") else "the worker has not joined its consumer group yet"

"""Headquarters' database as its workers open it: no transaction of a worker can hold locks without limit."""

from typing import Any, Final

from sqlalchemy import Engine, event

from tenten.runtime.errors import DatabaseRefused
from tenten.sql.engine import open_database

TRANSACTION_SECONDS_MAX: Final = 30
"""The server ends a longer transaction, and with it the connection: a worker that is frozen within one, perhaps in the
middle of a COPY, must not keep a number sequence locked. A batch of 10,000 takes a second."""

SERVER_VERSION_MIN: Final = 17


def open_for_worker(url: str) -> Engine:
    """The engine of a worker. Connecting raises `DatabaseRefused` when the server is too old."""
    engine = open_database(url)

    @event.listens_for(engine, "connect")
    def limit_transactions(connection: Any, _: object) -> None:
        major = connection.info.server_version // 10_000
        if major < SERVER_VERSION_MIN:
            raise DatabaseRefused(
                f"headquarters' database runs on PostgreSQL {major}: it needs {SERVER_VERSION_MIN} or newer"
            )
        connection.execute(f"SET transaction_timeout = '{TRANSACTION_SECONDS_MAX}s'")
        connection.commit()

    return engine

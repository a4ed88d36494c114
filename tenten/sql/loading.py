"""How far a load of all customers is, in the channel's database: whoever loads writes it, heartbeats report it."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, select

from tenten.runtime.settings import Settings
from tenten.schemas.messages import Loading
from tenten.schemas.tables.channel import loading
from tenten.sql.channel_state import complete_at, read_up_to
from tenten.sql.upsert import insert_into

RESYNC: Final = "resync"
FIRST_LOAD: Final = "first_load"

_ABANDONED: Final = timedelta(minutes=2)
"""A load that has written nothing for this long was killed, or waits for a server."""


def write_loading(connection: Connection, load: Loading, now: datetime) -> None:
    """Write how far a load is that counts for itself."""
    _write(connection, load, load.done, now)


def write_first_load(connection: Connection, total: int, now: datetime) -> None:
    """Record that the channel begins to read this many records; its positions tell how far it is."""
    load = Loading(kind=FIRST_LOAD, done=0, total=total, started_at=now)
    _write(connection, load, None, now)


def forget_loading(connection: Connection) -> None:
    """The load has ended. Idempotent."""
    connection.execute(delete(loading))


def read_loading(connection: Connection, settings: Settings, now: datetime) -> Loading | None:
    """The load that is under way; None without one. A look-up by key, while there is none."""
    row = connection.execute(select(loading)).one_or_none()
    if row is None:
        return None
    done = row.done
    if done is None:
        complete = complete_at(connection, settings)
        if complete is not None and complete > row.started_at:
            return None
        done = read_up_to(connection, settings)
    elif now - row.updated_at > _ABANDONED:
        return None
    return Loading(kind=row.kind, done=min(done, row.total), total=row.total, started_at=row.started_at)


def _write(connection: Connection, load: Loading, done: int | None, now: datetime) -> None:
    values = {
        "kind": load.kind,
        "done": done,
        "total": load.total,
        "started_at": load.started_at,
        "updated_at": now,
    }
    upsert = insert_into(connection, loading).values(id=1, **values)
    connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=values))

"""Surplus customers: those of the channel that a resync has not seen in the topic.

The topic may lack customers, as after it was deleted and created again. So a resync deletes surplus customers only if
headquarters has declared the topic complete up to offsets that the resync has passed; and without consent only few.
Otherwise it keeps all of them and stores their ids in `resync_keys`, from which `tenten status` reports them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, exists, func, or_, select, text
from structlog import get_logger

from tenten.consumers.channel.databases import channel_database
from tenten.consumers.channel.distribution.key_set import KeySet
from tenten.consumers.channel.overlay import remove_customers
from tenten.consumers.channel.positions import waits_for_completeness
from tenten.runtime.settings import Settings
from tenten.schemas.tables.channel import customers, outbox, resync_keys
from tenten.sql.arrays import is_one_of
from tenten.sql.engine import consistent_view, open_database

log = get_logger(__name__)

DELETED_SHARE_MAX: Final = 0.1
"""Of a channel's customers: the most that a resync deletes without consent ..."""

DELETED_MAX: Final = 100
"""... or in a small channel this number, but never more than half of its customers."""

_SURPLUS_ROWS: Final = 200
_READ_ROWS: Final = 10_000
_KEY_ROWS: Final = 1_000


def settle_surplus(
    engine: Engine, channel_id: str, seen: KeySet, *, is_complete: Callable[[], bool], consent: bool
) -> bool:
    """Delete surplus customers, in slices; keep and report them if the topic may lack them, or if they are too many
    and `consent` is not given. False if they were kept because the topic may lack them.

    Customers that headquarters has not numbered, and those with edits that no snapshot shows yet, are never surplus.
    `is_complete` is asked only if there is surplus. Idempotent.
    """
    found = count = 0
    for read, surplus in _surplus(engine, seen):
        count += read
        found += len(surplus)
    complete = not found or is_complete()
    if not complete or (not consent and found > deletable(count)):
        _keep(engine, seen)
        log.error("surplus_kept", channel=channel_id, surplus=found, customers=count, topic_is_complete=complete)
        return complete
    if found:
        for _, surplus in _surplus(engine, seen):
            _delete(engine, surplus)
        log.info("surplus_deleted", channel=channel_id, surplus=found, customers=count)
    return True


def deletable(customers_count: int) -> int:
    """The number of customers that a resync may delete without consent from a channel with this many."""
    return max(int(DELETED_SHARE_MAX * customers_count), min(DELETED_MAX, customers_count // 2))


def surplus_problem(connection: Connection, channel_name: str) -> str | None:
    """A sentence for an operator about surplus customers that the last resync has kept; None without any."""
    still_exists = exists().where(customers.c.customer_id == resync_keys.c.customer_id)
    kept = connection.scalar(select(func.count()).select_from(resync_keys).where(still_exists))
    if not kept:
        return None
    sentence = f"the last resync did not find {kept} customers of this channel in the topic and has kept them"
    if waits_for_completeness(connection):
        return (
            f"{sentence}, because the topic may lack them: if it was deleted and created again, run `tenten "
            "headquarters republish` at headquarters, otherwise `tenten headquarters verify`; this channel then "
            "resyncs automatically"
        )
    return (
        f"{sentence}, because they are many; headquarters does not have them either: `tenten channel resync "
        f"{channel_name} --yes` deletes them"
    )


def kept_surplus(settings: Settings, channel_name: str) -> str | None:
    """As `surplus_problem`, from the channel's database. Raises: `DatabaseRefused`, `SettingsError`."""
    engine = open_database(settings.channel(channel_name).database)
    try:
        with consistent_view(engine) as connection:
            return surplus_problem(connection, channel_name)
    finally:
        engine.dispose()


def forget_kept_surplus(engine: Engine) -> None:
    """Empty the table of surplus customers. Idempotent."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE resync_keys"))
        return
    slice_of_keys = select(resync_keys.c.customer_id).limit(_KEY_ROWS)
    deleted = 1
    while deleted:
        with engine.begin() as connection:
            statement = delete(resync_keys).where(resync_keys.c.customer_id.in_(slice_of_keys))
            deleted = connection.execute(statement).rowcount


def _surplus(engine: Engine, seen: KeySet) -> Iterator[tuple[int, Sequence[str]]]:
    """All customers of the channel in slices: the number of customers in the slice, and the surplus ones among them.

    In the order of their ids, so that each slice is a short transaction.
    """
    query = select(customers.c.customer_id).order_by(customers.c.customer_id).limit(_READ_ROWS)
    after: ColumnElement[bool] | None = None
    while True:
        with consistent_view(engine) as connection:
            ids = list(connection.scalars(query if after is None else query.where(after)))
            if not ids:
                return
            unseen = seen.missing(ids)
            surplus = _of_headquarters(connection, unseen) if unseen else []
        yield len(ids), surplus
        after = customers.c.customer_id > ids[-1]


def _of_headquarters(connection: Connection, ids: Sequence[str]) -> Sequence[str]:
    """Those of the customers that headquarters knows, and has no edit of that a snapshot has still to show."""
    from_headquarters = or_(customers.c.version > 0, customers.c.account_number.is_not(None))
    edited = exists().where(
        outbox.c.aggregateid == customers.c.customer_id,
        outbox.c.aggregatetype == "customer",
        # Settled in a later version: the reply was faster than the snapshot, which is behind the replay.
        or_(outbox.c.settled_at.is_(None), outbox.c.version > customers.c.version),
    )
    is_surplus = and_(is_one_of(connection, customers.c.customer_id, ids), from_headquarters, ~edited)
    return connection.scalars(select(customers.c.customer_id).where(is_surplus)).all()


def _delete(engine: Engine, ids: Sequence[str]) -> None:
    for first in range(0, len(ids), _SURPLUS_ROWS):
        slice_of_ids = ids[first : first + _SURPLUS_ROWS]
        with engine.begin() as connection:
            # Locked before they are selected again: a clerk may have edited one of them meanwhile.
            channel_database(engine).lock_versions(connection, slice_of_ids)
            remove_customers(connection, _of_headquarters(connection, slice_of_ids))


def _keep(engine: Engine, seen: KeySet) -> None:
    for _, surplus in _surplus(engine, seen):
        for first in range(0, len(surplus), _KEY_ROWS):
            with engine.begin() as connection:
                channel_database(engine).remember_surplus(connection, surplus[first : first + _KEY_ROWS])

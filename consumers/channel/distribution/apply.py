"""Bring changes into a channel's tables, within one SQL transaction: the same steps on PostgreSQL and SQLite.

Lock the customers' rows in the order of their GUIDs, *then* read the outbox, *then* write: an edit that a clerk has
committed before is seen, and one he is about to make waits. Only what is newer than the row is applied. Customers with
edits that headquarters has not settled, and a few at a time, go one by one (consumers/channel/overlay.py); all others
as columns, a few statements whatever their number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType

from sqlalchemy import Connection, Engine

from tenten.avro.wire import WriterSchemas
from tenten.consumers.channel.distribution import postgresql, sqlite
from tenten.consumers.channel.distribution.snapshots import Changes, Filter
from tenten.consumers.channel.overlay import erase, forget_snapshots, remove, show
from tenten.runtime.settings import Settings
from tenten.sql.customer_frames import Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelView:
    """What a channel is, for those who write its customers."""

    channel_id: str
    filter: Filter
    writers: WriterSchemas

    @classmethod
    def of(cls, settings: Settings, channel_name: str, writers: WriterSchemas) -> "ChannelView":
        """The channel of that name. Raises: `SettingsError`."""
        return cls(channel_id=channel_name, filter=Filter.of(settings.channel(channel_name)), writers=writers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """How many customers were new, changed, laid under edits, or taken away."""

    inserted: int = 0
    updated: int = 0
    edited: int = 0
    removed: int = 0

    def __add__(self, other: "Applied") -> "Applied":
        return Applied(
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            edited=self.edited + other.edited,
            removed=self.removed + other.removed,
        )


def apply(
    connection: Connection, view: ChannelView, changes: Changes, at: datetime, *, survivors: bool = False
) -> Applied:
    """Apply changes. With `survivors` each snapshot is known to be the last of its key: it wins whatever the row has.

    Raises: `WriteConflict` when somebody else writes one of these customers at this moment: the same again will do.
    """
    tables = tables_of(connection)
    asked = {**dict(zip(changes.ids, changes.versions, strict=True)), **changes.unwanted}
    known = tables.lock_versions(connection, [*asked, *changes.erased])
    erase(connection, changes.erased, view.channel_id, at)
    for guid in changes.erased:
        known.pop(guid, None)
    due = asked if survivors or not known else _newer(asked, known)
    if changes.frames is None:
        edited = set(due)
    else:
        edited = tables.with_edits(connection, list(due), list(due.values())) if due else set()
    new = {guid for guid in changes.ids if guid not in known and guid not in edited}
    changed = {guid for guid in changes.ids if guid in known and guid in due and guid not in edited}
    gone = [guid for guid in changes.unwanted if guid in known and guid in due and guid not in edited]
    if new:
        tables.insert(connection, changes.rows_of(new))
    if changed:
        tables.update(connection, changes.rows_of(changed), changed)
        forget_snapshots(connection, changed)
    remove(connection, gone)
    if edited:
        show(connection, changes.snapshots(edited), view.filter, view.writers)
    return Applied(inserted=len(new), updated=len(changed), edited=len(edited), removed=len(gone) + len(changes.erased))


def dialect_of(database: Connection | Engine) -> Dialect:
    """Which of the two a channel's database is."""
    return "sqlite" if database.dialect.name == "sqlite" else "postgresql"


def tables_of(database: Connection | Engine) -> ModuleType:
    """The bulk statements for this database."""
    return sqlite if dialect_of(database) == "sqlite" else postgresql


def _newer(asked: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    """Those whose snapshot is newer than the row, and those that have none."""
    return {guid: version for guid, version in asked.items() if version > known.get(guid, -1)}

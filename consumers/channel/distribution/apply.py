"""Apply changes to a channel's tables, within one SQL transaction: the same steps on PostgreSQL and SQLite.

Lock the customers' rows in the order of their GUIDs, *then* read the outbox, *then* write: an edit committed before is
seen, and one that is about to be made waits. Only snapshots newer than the row are applied. Customers with unsettled
edits are written one by one (consumers/channel/overlay.py); all others in columns, or in small batches by prepared
statements (small_batch.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.databases import ChannelDatabase, channel_database
from tenten.consumers.channel.distribution.small_batch import customers_with_edits, write_snapshots
from tenten.consumers.channel.overlay import (
    delete_base_snapshots,
    erase_customers,
    remove_customers,
    show_snapshots,
)
from tenten.consumers.channel.snapshots import Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The number of customers inserted, updated, written one by one (edited), and removed."""

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
    connection: Connection, view: ChannelView, changes: Changes, at: datetime, *, last_records: bool = False
) -> Applied:
    """Apply changes. Idempotent.

    With `last_records` each snapshot is known to be the last of its key: it replaces the row whatever its version.
    Raises: `WriteConflict` when another process writes one of these customers at the same moment; retry then.
    """
    database = channel_database(connection)
    snapshot_versions = {**dict(zip(changes.ids, changes.versions, strict=True)), **changes.filtered_out}
    stored_versions = database.lock_versions(connection, [*snapshot_versions, *changes.erased])
    erase_customers(connection, changes.erased, view.channel_id, at)
    for guid in changes.erased:
        stored_versions.pop(guid, None)
    to_apply = snapshot_versions if last_records else _newer(snapshot_versions, stored_versions)
    one_by_one = _with_edits(connection, database, changes, to_apply)
    others = to_apply.keys() - one_by_one
    if changes.frames is None:
        inserted, updated = _write_small_batch(connection, changes, others, stored_versions.keys())
    else:
        inserted, updated = _write_in_columns(connection, database, changes, others, stored_versions.keys())
    removed = [guid for guid in changes.filtered_out if guid in others and guid in stored_versions]
    remove_customers(connection, removed)
    if one_by_one:
        show_snapshots(connection, changes.customers(one_by_one), view.filter, view.writers)
    return Applied(
        inserted=inserted,
        updated=updated,
        edited=len(one_by_one),
        removed=len(removed) + len(changes.erased),
    )


def _newer(snapshot_versions: Mapping[str, int], stored_versions: Mapping[str, int]) -> dict[str, int]:
    """The customers whose snapshot is newer than the row, or that have no row."""
    return {guid: version for guid, version in snapshot_versions.items() if version > stored_versions.get(guid, -1)}


def _with_edits(
    connection: Connection, database: ChannelDatabase, changes: Changes, versions: Mapping[str, int]
) -> set[str]:
    """The customers whose edits are shown over their snapshots of these versions."""
    if not versions:
        return set()
    if changes.frames is None:
        return customers_with_edits(connection, versions)
    return database.with_edits(connection, list(versions), list(versions.values()))


def _write_small_batch(
    connection: Connection, changes: Changes, chosen: Collection[str], stored: Collection[str]
) -> tuple[int, int]:
    """Write those of the accepted customers that are chosen; the numbers inserted and updated."""
    accepted = [guid for guid in changes.ids if guid in chosen]
    updated = [guid for guid in accepted if guid in stored]
    if accepted:
        write_snapshots(connection, changes.records(chosen), updated)
    return len(accepted) - len(updated), len(updated)


def _write_in_columns(
    connection: Connection,
    database: ChannelDatabase,
    changes: Changes,
    in_columns: Collection[str],
    stored: Collection[str],
) -> tuple[int, int]:
    """Write those of the accepted customers that go in columns; the numbers inserted and updated."""
    inserted = {guid for guid in changes.ids if guid in in_columns and guid not in stored}
    updated = {guid for guid in changes.ids if guid in in_columns and guid in stored}
    if not inserted and not updated:
        return 0, 0
    from tenten.consumers.channel.snapshot_columns import select_frames

    if inserted:
        database.insert(connection, select_frames(changes, inserted))
    if updated:
        database.update(connection, select_frames(changes, updated), updated)
        delete_base_snapshots(connection, updated)
    return len(inserted), len(updated)

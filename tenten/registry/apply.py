"""Apply settings to headquarters' registry: all of them in one SQL transaction, one command at a time."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, text

from tenten.registry.refusals import refuse_impossible
from tenten.registry.tables import end_identities, read_registry, registry_version, write_history, write_registry
from tenten.registry.values import CHANNELS, Differences, Registry, differences
from tenten.rules.operator_rule import operator_violations
from tenten.runtime.errors import InputRejected
from tenten.sql.engine import consistent_view

SETTINGS_CHANNEL: Final = "tenten_settings"
"""PostgreSQL NOTIFY channel: notified in every transaction that changes the registry."""


def apply_registry(
    engine: Engine,
    wanted: Registry,
    *,
    source: str,
    operator: str | None = None,
    to_remove: Collection[str] = (),
    dry_run: bool = False,
) -> Differences:
    """Make the registry what is wanted, and return what that changed. Idempotent.

    An entry that is not wanted is removed if `to_remove` names it (`channels.dallas`). `source` is the command, for the
    history. Raises: `SettingsError` for changes that are refused, then nothing was changed; `InputRejected` for an
    operator that cannot be stored.
    """
    broken = [*operator_violations(operator)]
    if broken:
        raise InputRejected(broken)
    with engine.begin() as headquarters:
        lock_registry(headquarters)
        changes = differences(read_registry(headquarters), wanted)
        refuse_impossible(headquarters, wanted, changes, to_remove)
        if not dry_run:
            _write(headquarters, wanted, changes, source=source, operator=operator)
    return changes


def add_to_registry(engine: Engine, wanted: Registry, *, source: str) -> Differences:
    """Add and change what is wanted, remove nothing, and return what that changed. Idempotent.

    Raises: `SettingsError` for changes that are refused, then nothing was changed.
    """
    with engine.begin() as headquarters:
        lock_registry(headquarters)
        return _add(headquarters, wanted, source)


def fill_new_registry(engine: Engine, wanted: Registry, *, source: str) -> Differences:
    """Apply these settings if none were ever applied, and return what that changed. Idempotent.

    Raises: `SettingsError` for changes that are refused, then nothing was changed.
    """
    if wanted.is_empty:
        return Differences()
    with consistent_view(engine) as headquarters:
        is_new = registry_version(headquarters) is None
    if is_new:
        with engine.begin() as headquarters:
            lock_registry(headquarters)
            if registry_version(headquarters) is None:
                return _add(headquarters, wanted, source)
    return Differences()


def compare_registry(engine: Engine, wanted: Registry, *, with_removed: bool = True) -> Differences:
    """What `apply_registry` would change, or `add_to_registry` without `with_removed`."""
    with consistent_view(engine) as headquarters:
        return differences(read_registry(headquarters), wanted, with_removed=with_removed)


def _add(headquarters: Connection, wanted: Registry, source: str) -> Differences:
    changes = differences(read_registry(headquarters), wanted, with_removed=False)
    refuse_impossible(headquarters, wanted, changes, ())
    _write(headquarters, wanted, changes, source=source, operator=None)
    return changes


def _write(
    headquarters: Connection, wanted: Registry, changes: Differences, *, source: str, operator: str | None
) -> None:
    """Write the changes, if there are any, with their history; notify the workers at the commit."""
    if changes.none:
        return
    now = datetime.now(UTC)
    write_registry(headquarters, wanted, changes, now)
    ended = end_identities(headquarters, changes.removed_from(CHANNELS), now)
    changes = replace(changes, changed=(*changes.changed, *ended))
    record_changes(headquarters, changes, operator=operator, source=source, now=now)


def lock_registry(headquarters: Connection) -> None:
    """Wait until no other transaction changes the registry, and let none do so until this one ends. Every change of the
    registry, of keys and of suspensions begins with this.
    """
    headquarters.execute(_LOCK)


def record_changes(
    headquarters: Connection, changes: Differences, *, operator: str | None, source: str, now: datetime
) -> None:
    """Give the registry a new version, with these changes in its history; notify the workers at the commit."""
    write_history(headquarters, changes, operator=operator, source=source, now=now)
    headquarters.execute(text(f"NOTIFY {SETTINGS_CHANNEL}"))


_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.settings', 0))")
"""One change at a time: a second command compares with what the first has written."""

"""Changes of the registry that are refused, and why."""

from collections.abc import Collection, Iterator
from typing import Final

from sqlalchemy import Connection, text

from tenten.registry.tables import entry_named
from tenten.registry.values import CHANNELS, LEGAL_ENTITIES, Differences, Registry
from tenten.rules.number_sequence import number_format
from tenten.runtime.errors import SettingsError

_NAMED_MAX: Final = 10


def refuse_impossible(
    headquarters: Connection, wanted: Registry, changes: Differences, to_remove: Collection[str]
) -> None:
    """Check the changes against what headquarters has. `to_remove`: the entries whose removal somebody agrees to.

    Raises: `SettingsError` that names every refused change, and what to do instead.
    """
    problems = [
        *_moved_channels(changes),
        *_narrowed_formats(headquarters, wanted, changes),
        *_removed_without_consent(headquarters, changes, to_remove),
        *_removed_with_customers(headquarters, changes),
        *_removed_while_suspended(headquarters, changes),
        *(
            f"{name}: the file has it; delete it there if it is to be removed"
            for name in sorted(to_remove)
            if entry_named(name)[1] in dict(wanted.by_section()).get(entry_named(name)[0], {})
        ),
    ]
    if problems:
        raise SettingsError(f"nothing was applied: {'; '.join(problems)}")


def _moved_channels(changes: Differences) -> Iterator[str]:
    for change in changes.changed:
        section, _ = entry_named(change.setting)
        if section == CHANNELS and change.setting.endswith(".legal_entity"):
            entry = change.setting.removesuffix(".legal_entity")
            yield (
                f"{change.setting}: a channel keeps its legal entity, {change.before}, since its customers belong to "
                f"it. If it has none yet, delete the channel from the file, apply that with --remove {entry}, and add "
                "the channel again"
            )


def _narrowed_formats(headquarters: Connection, wanted: Registry, changes: Differences) -> Iterator[str]:
    """Numbers that were assigned must fit into the format for ever."""
    touched = {entry_named(change.setting) for change in (*changes.added, *changes.changed)}
    stored = {(row.numbers, row.legal_entity): row.format for row in headquarters.execute(_FORMATS)}
    for section, name in sorted(touched):
        if section != LEGAL_ENTITIES:
            continue
        for numbers in ("account_numbers", "sales_orders"):
            old, new = stored.get((numbers, name)), str(wanted.legal_entities[name][f"{numbers}.format"])
            if old is not None and number_format(new).digits < number_format(old).digits:
                yield (
                    f"{section}.{name}.{numbers}.format: {new} has fewer digits than {old}; a format may only become "
                    "longer"
                )


def _removed_without_consent(
    headquarters: Connection, changes: Differences, to_remove: Collection[str]
) -> Iterator[str]:
    missing = [change.setting for change in changes.removed if change.setting not in to_remove]
    if not missing:
        return
    open_work = _open_work(headquarters, missing)
    for setting in missing[:_NAMED_MAX]:
        yield (
            f"{setting}: headquarters has it and the file does not{open_work.get(setting, '')}; add it to the file, or "
            f"remove it with --remove {setting}"
        )
    if len(missing) > _NAMED_MAX:
        yield f"the same for {len(missing) - _NAMED_MAX:,} more (`tenten settings diff FILE` lists them)"


def _open_work(headquarters: Connection, settings: Collection[str]) -> dict[str, str]:
    """What would wait for a removed channel, by setting, as the continuation of a sentence."""
    names = [name for section, name in map(entry_named, settings) if section == CHANNELS]
    rows = headquarters.execute(_OPEN_WORK, {"channels": names}) if names else ()
    return {
        f"{CHANNELS}.{row.channel_id}": f" (open: {row.held:,} customer events, {row.open:,} orders and sales)"
        for row in rows
    }


def _removed_with_customers(headquarters: Connection, changes: Differences) -> Iterator[str]:
    for change in changes.removed:
        section, name = entry_named(change.setting)
        if section == LEGAL_ENTITIES and headquarters.scalar(_HAS_CUSTOMERS, {"name": name}):
            yield f"{change.setting}: it has customers or sales orders, so it cannot be removed; add it to the file"


def _removed_while_suspended(headquarters: Connection, changes: Differences) -> Iterator[str]:
    """With the channel its suspension would go: added again, the channel would not be suspended."""
    names = changes.removed_from(CHANNELS)
    for name in headquarters.scalars(_SUSPENDED, {"channels": names}) if names else ():
        yield f"{CHANNELS}.{name}: it is suspended; resume it first (`tenten channel resume {name}`)"


_SUSPENDED: Final = text(
    """
    SELECT channel_id FROM channels WHERE suspended_at IS NOT NULL AND channel_id = ANY (:channels) ORDER BY channel_id
    """
)

_FORMATS: Final = text(
    """
    SELECT 'account_numbers' AS numbers, legal_entity, format FROM number_sequences
    UNION ALL SELECT 'sales_orders', legal_entity, format FROM sales_order_sequences
    """
)
"""Also of legal entities that were removed."""

_OPEN_WORK: Final = text(
    """
    SELECT channel_id, sum(held) AS held, sum(open) AS open
    FROM (
        SELECT channel_id, count(*) AS held, 0 AS open FROM held_events
        WHERE judged_at IS NULL AND channel_id = ANY (:channels) GROUP BY channel_id
        UNION ALL
        SELECT channel_id, 0, count(*) FROM retail_transactions
        WHERE status IN ('waiting', 'blocked') AND channel_id = ANY (:channels) GROUP BY channel_id
    ) AS work
    GROUP BY channel_id
    """
)
"""Held events and open transactions of channels. Both are bounded: there is an index of open transactions."""

_HAS_CUSTOMERS: Final = text(
    """
    SELECT EXISTS (SELECT FROM customers WHERE legal_entity = :name)
        OR EXISTS (SELECT FROM sales_orders WHERE legal_entity = :name)
    """
)
"""Both have an index that begins with the legal entity."""

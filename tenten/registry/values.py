"""The registry as plain values: what a file says, what the database has, and the difference between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tenten.runtime.settings import ChannelProfile, LegalEntity, Settings

Value: TypeAlias = str | int | float | bool | list[str]
Entry: TypeAlias = Mapping[str, Value]
"""The settings of a legal entity or channel by their names below it: `account_numbers.format`. None is left out."""

LEGAL_ENTITIES: Final = "legal_entities"
CHANNELS: Final = "channels"

FIRST_NUMBERS: Final = ("account_numbers.next", "sales_orders.next")
"""Only for a sequence that does not exist yet: an existing one has its own, which is never lowered."""

_NAMES: Final = ("default_customer.customer_type", "default_customer.receipt_preference")
"""Enums, in lower case here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Legal entities and channels by name."""

    legal_entities: Mapping[str, Entry]
    channels: Mapping[str, Entry]

    @property
    def is_empty(self) -> bool:
        """Whether it has neither a legal entity nor a channel."""
        return not self.legal_entities and not self.channels

    def by_section(self) -> Iterator[tuple[str, Mapping[str, Entry]]]:
        """The sections of a file, with their entries."""
        yield LEGAL_ENTITIES, self.legal_entities
        yield CHANNELS, self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A difference: a whole entry (`channels.dallas`) that one side lacks, or a setting of an entry."""

    setting: str
    before: Any
    """None if it did not exist."""
    after: Any

    def as_json(self) -> dict[str, Any]:
        """With its values, as the history keeps it."""
        return {"setting": self.setting, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """The changes that turn one registry into another, sorted by name, legal entities first."""

    added: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    removed: tuple[Change, ...] = ()

    @property
    def none(self) -> bool:
        """Whether both are equal."""
        return not (self.added or self.changed or self.removed)

    def settings(self) -> dict[str, list[str]]:
        """The names of the settings by kind of change."""
        return {kind: [change.setting for change in changes] for kind, changes in self._by_kind()}

    def removed_from(self, section: str) -> list[str]:
        """The names of the entries of a section that are removed."""
        return [
            change.setting.removeprefix(f"{section}.") for change in self.removed if change.setting.startswith(section)
        ]

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """All changes with their values, as the history keeps them."""
        return {kind: [change.as_json() for change in changes] for kind, changes in self._by_kind()}

    def __str__(self) -> str:
        """The first few settings that differ, for a message."""
        names = [change.setting for _, changes in self._by_kind() for change in changes]
        more = f" and {len(names) - _SHOWN_MAX:,} more" if len(names) > _SHOWN_MAX else ""
        return ", ".join(names[:_SHOWN_MAX]) + more

    def _by_kind(self) -> Iterator[tuple[str, tuple[Change, ...]]]:
        yield "added", self.added
        yield "changed", self.changed
        yield "removed", self.removed


_SHOWN_MAX: Final = 10


def registry_of_settings(settings: Settings) -> Registry:
    """The legal entities and channels of the settings of this machine, without channels that it only has the database
    of.
    """
    return registry_of(
        settings.legal_entities, {name: channel for name, channel in settings.channels.items() if channel.legal_entity}
    )


def registry_of(legal_entities: Mapping[str, LegalEntity], channels: Mapping[str, ChannelProfile]) -> Registry:
    """These legal entities and channels. The order of names in a list does not matter: they are sorted."""
    return Registry(
        legal_entities={name: entry_of(entity.model_dump(mode="json")) for name, entity in legal_entities.items()},
        channels={
            name: entry_of(channel.model_dump(mode="json", exclude={"database"})) for name, channel in channels.items()
        },
    )


def entry_of(table: Mapping[str, Any]) -> Entry:
    """The settings of a table with its tables, by dotted name."""
    entry: dict[str, Value] = {}
    _add_to(entry, table, "")
    return entry


def _add_to(entry: dict[str, Value], table: Mapping[str, Any], prefix: str) -> None:
    for name, value in table.items():
        path = prefix + name
        if isinstance(value, dict):
            _add_to(entry, value, f"{path}.")
        elif isinstance(value, list):
            entry[path] = sorted(set(value))
        elif value is not None:
            entry[path] = value.lower() if path in _NAMES else value


def table_of(entry: Entry) -> dict[str, Any]:
    """The inverse of `entry_of`: a table with its tables."""
    table: dict[str, Any] = {}
    for path, value in entry.items():
        *parents, name = path.split(".")
        inner = table
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return table


def differences(before: Registry, after: Registry, *, with_removed: bool = True) -> Differences:
    """The changes that turn `before` into `after`. The numbers with which new sequences begin do not count.

    Without `with_removed`, an entry that only `before` has is left as it is.
    """
    added: list[Change] = []
    changed: list[Change] = []
    removed: list[Change] = []
    for (section, old), (_, new) in zip(before.by_section(), after.by_section(), strict=True):
        for name in sorted({*old, *new}):
            path = f"{section}.{name}"
            if name not in old:
                added.append(Change(setting=path, before=None, after=table_of(new[name])))
            elif name not in new:
                removed.append(Change(setting=path, before=table_of(old[name]), after=None))
            elif old[name] != new[name]:
                changed += _changed(path, old[name], new[name])
    return Differences(added=tuple(added), changed=tuple(changed), removed=tuple(removed) if with_removed else ())


def _changed(path: str, old: Entry, new: Entry) -> Iterator[Change]:
    for name in sorted({*old, *new}.difference(FIRST_NUMBERS)):
        if old.get(name) != new.get(name):
            yield Change(setting=f"{path}.{name}", before=old.get(name), after=new.get(name))

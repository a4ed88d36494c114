"""The channels and legal entities that headquarters accepts records from and for."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

from sqlalchemy import Engine, select
from structlog import get_logger

from tenten.consumers.headquarters.known_keys import NO_KEYS, KnownKeys, read_known_keys
from tenten.registry.apply import compare_registry, fill_new_registry
from tenten.registry.channel_records import definitions_of
from tenten.registry.tables import Version, registry_version
from tenten.registry.values import registry_of_settings
from tenten.rules.definitions import CustomerDefinitions, TransactionDefinitions
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.tables.headquarters import channels, legal_entities
from tenten.sql.engine import consistent_view

log = get_logger(__name__)

LOOK_UP_SECONDS: Final = 1.0
"""The shortest time between two look-ups of unknown channels."""

_NAMES_MAX: Final = 20
"""The most settings that a log event names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChannels:
    """The legal entity of each channel, by channel id, all legal entities, what channels may do, and their keys."""

    legal_entity_by_channel: Mapping[str, str]
    legal_entities: frozenset[str]
    erasing: frozenset[str] = frozenset()
    """The channels that may erase customers of their legal entity."""
    keys: KnownKeys = NO_KEYS
    version: Version | None = None
    """The last change of the registry; None if there was none."""
    definitions: Mapping[str, CustomerDefinitions] = field(default_factory=dict)
    """By legal entity what its customers may have; only of those that have defined something."""
    transaction_definitions: Mapping[str, TransactionDefinitions] = field(default_factory=dict)
    """The same for orders and sales."""


def entities_of(channel_ids: Iterable[str], legal_entity_by_channel: Mapping[str, str]) -> dict[str, str]:
    """The part of the mapping for these channels: a column expression with thousands of channels costs milliseconds."""
    return {name: legal_entity_by_channel[name] for name in channel_ids if name in legal_entity_by_channel}


class ChannelRegistry:
    """The channels and legal entities of headquarters' database, in the memory of a worker. Any thread may use it.

    They are read again after a change: a worker is notified of it (`SETTINGS_CHANNEL`), and asks when a record names a
    channel that it does not know. `known` is replaced as a whole, never changed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._has_read = False
        self._looked_up_at = -LOOK_UP_SECONDS
        self.known = KnownChannels(legal_entity_by_channel={}, legal_entities=frozenset())

    def refresh(self) -> bool:
        """Read the registry if it has changed since it was read; whether it has. Raises: errors of the database."""
        with self._lock, consistent_view(self._engine) as headquarters:
            version = registry_version(headquarters)
            if self._has_read and version == self.known.version:
                return False
            columns = select(channels.c.channel_id, channels.c.legal_entity, channels.c.may_erase)
            rows = headquarters.execute(columns).all()
            entities = headquarters.execute(select(legal_entities)).all()
            self.known = KnownChannels(
                legal_entity_by_channel={row.channel_id: row.legal_entity for row in rows},
                legal_entities=frozenset(row.legal_entity for row in entities),
                definitions={row.legal_entity: found for row in entities if not (found := _definitions(row)).none},
                transaction_definitions={
                    row.legal_entity: defined for row in entities if not (defined := _of_transactions(row)).none
                },
                erasing=frozenset(row.channel_id for row in rows if row.may_erase),
                keys=read_known_keys(headquarters, self.known.keys),
                version=version,
            )
            is_first, self._has_read = not self._has_read, True
        if not is_first:
            known = self.known
            log.info(
                "settings_reloaded",
                channels=len(known.legal_entity_by_channel),
                legal_entities=len(known.legal_entities),
            )
        return True

    def look_up(self, channel_ids: Iterable[str], *, now: bool = False) -> KnownChannels:
        """The known channels. If one of these is unknown the database is asked first, but at most once a second; with
        `now` it is asked in any case.

        Known channels cost nothing. Raises: errors of the database.
        """
        names = self.known.legal_entity_by_channel
        if now or any(channel_id not in names and channel_id != HEADQUARTERS for channel_id in channel_ids):
            asked_at = time.monotonic()
            if now or asked_at - self._looked_up_at >= LOOK_UP_SECONDS:
                self._looked_up_at = asked_at
                self.refresh()
        return self.known


def _definitions(row: Any) -> CustomerDefinitions:
    return CustomerDefinitions.of(definitions_of(row.attributes), row.customer_groups)


def _of_transactions(row: Any) -> TransactionDefinitions:
    return TransactionDefinitions.of(definitions_of(row.attributes))


def begin_with_settings(settings: Settings, engine: Engine, worker: str) -> None:
    """Store the legal entities and channels of tenten.toml if headquarters has none yet; otherwise log differences.

    Raises: `SettingsError` for settings that are refused; errors of the database.
    """
    wanted = registry_of_settings(settings)
    stored = fill_new_registry(engine, wanted, source=worker)
    if not stored.none:
        log.info("settings_stored", channels=len(wanted.channels), legal_entities=len(wanted.legal_entities))
        return
    names = compare_registry(engine, wanted, with_removed=False).settings()
    if any(names.values()):
        log.warning("settings_differ", added=names["added"][:_NAMES_MAX], changed=names["changed"][:_NAMES_MAX])

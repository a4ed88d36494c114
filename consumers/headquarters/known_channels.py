"""The channels and legal entities that headquarters accepts records from and for."""

from collections.abc import Mapping
from dataclasses import dataclass

from tenten.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChannels:
    """The legal entity of each channel, by channel id, and all legal entities."""

    legal_entity_by_channel: Mapping[str, str]
    legal_entities: frozenset[str]


def known_channels(settings: Settings) -> KnownChannels:
    """The channels and legal entities of the settings."""
    return KnownChannels(
        legal_entity_by_channel={name: channel.legal_entity for name, channel in settings.channels.items()},
        legal_entities=frozenset(settings.legal_entities),
    )

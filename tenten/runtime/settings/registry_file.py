"""A file for headquarters' registry: the legal entities and channels of a tenten.toml, whatever else it has."""

from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from tenten.runtime.errors import SettingsError
from tenten.runtime.settings.load import problems, read_document
from tenten.runtime.settings.model import ChannelProfile, LegalEntity, Settings, check_channels
from tenten.runtime.settings.table import SettingsTable
from tenten.runtime.settings.values import Id

_OF_A_MACHINE: Final = tuple(name for name in Settings.model_fields if name not in ("legal_entities", "channels"))
"""Settings at the top of the file that belong to the machine that has it."""


class RegistryFile(NamedTuple):
    """The legal entities and channels of a file."""

    legal_entities: dict[str, LegalEntity]
    channels: dict[str, ChannelProfile]
    ignored: tuple[str, ...]
    """The settings of a machine that the file has besides."""


class _RegistryChannel(ChannelProfile):
    database: Any = Field(default=None, exclude=True, repr=False)


class _Document(SettingsTable):
    legal_entities: dict[Id, LegalEntity] = Field(default={})
    channels: dict[Id, _RegistryChannel] = Field(default={})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_channels(self.channels, self.legal_entities)
        return self


def read_registry_file(file: Path) -> RegistryFile:
    """Read the legal entities and channels of a file; those of a machine are not looked at.

    Raises: `SettingsError` that names file, section and key.
    """
    found = read_document(file)
    ignored = [name for name in _OF_A_MACHINE if found.pop(name, None) is not None]
    try:
        document = _Document.model_validate(found)
    except ValidationError as error:
        raise SettingsError(f"{'; '.join(problems(error))} ({file})") from None
    if any(channel.database is not None for channel in document.channels.values()):
        ignored.append("channels.NAME.database")
    return RegistryFile(document.legal_entities, {**document.channels}, tuple(ignored))

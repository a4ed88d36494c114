"""The directory of a store: its tenten.toml, written from the token."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tenten.identity.join_proof import kafka_password
from tenten.identity.token import Token
from tenten.registry.toml import table_lines
from tenten.runtime.errors import JoinRefused
from tenten.runtime.private_files import FILE_MODE, create_private_directory
from tenten.runtime.settings import Settings, load_settings
from tenten.runtime.settings.model import FILE_NAME

_MARK: Final = "# Written by `tenten store join`"
_HEAD: Final = f"""\
{_MARK}. The other settings of this store come from headquarters.
# It may hold a password: keep it readable for its owner only.
"""

_LINES_FILE: Final = "kafka-password.toml"
"""Beside a tenten.toml that was written by hand."""


def existing_settings(directory: Path, token: Token) -> Settings | None:
    """The settings of a store that has a tenten.toml; None without one. Changes nothing.

    Raises: `JoinRefused` for a file that is not of this store; `SettingsError`.
    """
    file = directory.absolute() / FILE_NAME
    if not file.exists():
        return None
    settings = load_settings(file)
    if token.channel_id not in settings.channels:
        others = ", ".join(settings.channels) or "no channel"
        raise JoinRefused(
            f"{file} is not of the store {token.channel_id}, for which the token is, but of {others}: name an empty "
            "directory with --directory, or add the channel to the file"
        )
    return settings


def create_settings(directory: Path, token: Token, database: str | None) -> Settings:
    """The settings of a new store, whose tenten.toml is written.

    `database`: the address, None for a SQLite file beside it. Raises: `SettingsError`; `OSError`.
    """
    file = directory.absolute() / FILE_NAME
    create_private_directory(file.parent)
    _write(file, _content(token, database))
    return load_settings(file)


def settings_to_join(directory: Path, settings: Settings, token: Token) -> Settings:
    """The settings with which headquarters is asked: with the token's password at Kafka, which no file has yet.

    Raises: `JoinRefused` for a file that was written by hand and lacks the password; then a private file beside it has
    the two lines.
    """
    if not _has_new_password(settings, token):
        return settings
    file = directory.absolute() / FILE_NAME
    if not _is_ours(file):
        lines = file.with_name(_LINES_FILE)
        _write(lines, {"kafka": {name: value for name, value in _kafka(token).items() if name.startswith("sasl.")}})
        raise JoinRefused(
            f'the token has a new password for Kafka, and {file} was written by hand: take over "sasl.username" and '
            f'"sasl.password" under [kafka] from {lines}, delete that file, then run this again'
        )
    return settings.model_copy(update={"kafka": {**settings.kafka, **_kafka(token)}})


def keep_password(directory: Path, settings: Settings, token: Token) -> None:
    """Write the token's password into the tenten.toml: headquarters has accepted the token. Idempotent."""
    if not _has_new_password(settings, token):
        return
    file = directory.absolute() / FILE_NAME
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    document["kafka"] = {**document.get("kafka", {}), **_kafka(token)}
    _write(file, document)


def _has_new_password(settings: Settings, token: Token) -> bool:
    return token.has_password and settings.kafka.get("sasl.password") != kafka_password(token.secret)


def _is_ours(file: Path) -> bool:
    """Whether this program has written the file, so that it may write it again."""
    return file.read_text(encoding="utf-8").startswith(_MARK)


def _content(token: Token, database: str | None) -> dict[str, Any]:
    given = {
        "prefix": token.prefix or None,
        "partitions": token.partitions,
        "schema_registry_url": token.schema_registry_url,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "kafka": _kafka(token),
        "channels": {token.channel_id: {"database": database or f"sqlite:///{token.channel_id}.db"}},
    }


def _kafka(token: Token) -> dict[str, str]:
    password = {"sasl.password": kafka_password(token.secret)} if token.has_password else {}
    return {**token.kafka, **password}


def _write(file: Path, document: Mapping[str, Any]) -> None:
    """Write the file as a whole, readable for its owner only: it is there completely or not at all."""
    text = _HEAD + "\n" + "\n".join(table_lines("", document)) + "\n"
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)

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


def prepare_directory(directory: Path, token: Token, database: str | None) -> Settings:
    """The settings of the store, whose tenten.toml is written if there is none. Idempotent.

    `database`: the address in a new file, None for a SQLite file beside it. An existing file keeps what it has; if it
    was written here, it takes the new password of a newer token.
    Raises: `JoinRefused` for a file that is not of this store; `SettingsError`; `OSError`.
    """
    file = directory.absolute() / FILE_NAME
    if not file.exists():
        create_private_directory(file.parent)
        _write(file, _content(token, database))
    settings = load_settings(file)
    if token.channel_id not in settings.channels:
        others = ", ".join(settings.channels) or "no channel"
        raise JoinRefused(
            f"{file} is not of the store {token.channel_id}, for which the token is, but of {others}: name an empty "
            "directory with --directory, or add the channel to the file"
        )
    password = kafka_password(token.secret) if token.has_password else None
    if password is not None and settings.kafka.get("sasl.password") != password:
        _take_password(file, token, password)
        settings = load_settings(file)
    return settings


def _take_password(file: Path, token: Token, password: str) -> None:
    text = file.read_text(encoding="utf-8")
    if not text.startswith(_MARK):
        raise JoinRefused(
            f"the token has a new password for Kafka, and {file} was written by hand: write "
            f'"sasl.username" = "{token.kafka["sasl.username"]}" and "sasl.password" = "{password}" under [kafka] '
            "there, then run this again"
        )
    document = tomllib.loads(text)
    document["kafka"] = {**document.get("kafka", {}), **_kafka(token)}
    _write(file, document)


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
    new = file.with_name(f"{FILE_NAME}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)

"""Access tokens: a secret text in a file that only its owner can read, made at the first start."""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from tenten.runtime.errors import SettingsError
from tenten.runtime.private_files import create_private_file
from tenten.runtime.settings import Settings

_FILE_NAME: Final = "api.token"
"""The file with the token of a store's API and screen."""

_BYTES: Final = 32
_CHARACTERS_MIN: Final = 20


def access_token(file: Path) -> str:
    """The token in this file, which is made if it does not exist. Raises: `SettingsError`."""
    try:
        if not file.exists():
            _make(file)
        token = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"the access token in {file} cannot be made or read: {error}") from error
    if len(token) < _CHARACTERS_MIN:
        raise SettingsError(f"the access token in {file} has fewer than {_CHARACTERS_MIN} characters: delete the file")
    return token


def api_token(settings: Settings, channel: str, token_file: Path | None = None) -> str:
    """The token of a channel's API and screen: in this file, by default `api.token` beside its SQLite database, or in
    the directory of tenten.toml. Raises: `SettingsError`.
    """
    return access_token(token_file or api_token_file(settings, channel))


def api_token_file(settings: Settings, channel: str) -> Path:
    """Where the token of a channel is by default. Raises: `SettingsError`."""
    address = make_url(settings.channel(channel).database)
    if address.drivername == "sqlite" and address.database:
        return Path(address.database).parent / _FILE_NAME
    return settings.directory / _FILE_NAME


def operator_token_file(settings: Settings, directory: Path | None = None) -> Path:
    """Where the token of the dashboard's operators is: in this directory, by default beside the settings' `data`."""
    return role_token_file(settings, "operator", directory)


def role_token_file(settings: Settings, role: str, directory: Path | None = None) -> Path:
    """Where the token of a role at the dashboard is, viewer or operator."""
    return (settings.data.parent if directory is None else directory) / f"{role}.token"


def is_token(given: str, token: str) -> bool:
    """Whether both are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), token.encode())


def _make(file: Path) -> None:
    """Make a token, complete from the first moment; the first of two processes wins."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    create_private_file(new)
    new.write_text(f"{secrets.token_urlsafe(_BYTES)}\n", "ascii")
    with suppress(FileExistsError):
        os.link(new, file)
    new.unlink()

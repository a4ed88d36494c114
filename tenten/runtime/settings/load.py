"""Load the effective settings. Precedence: options, environment, tenten.toml. Nothing is read before `load_settings`.

The environment holds what differs between machines or is secret; everything else is in the file:

    KAFKA_BOOTSTRAP_SERVERS, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD     as in [kafka]
    TENTEN_KAFKA                                                          further properties of [kafka], a JSON object
    SCHEMA_REGISTRY_URL                                                   schema_registry_url
    TENTEN_HEADQUARTERS_URL                                               database of [headquarters]
    TENTEN_CONFIG                                                         the file; default: tenten.toml here

An empty variable counts as unset.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tenten.runtime.environment import kafka_of_environment
from tenten.runtime.errors import SettingsError
from tenten.runtime.settings.kafka_properties import flatten
from tenten.runtime.settings.model import (
    FILE_NAME,
    AccountNumbers,
    Channel,
    DefaultCustomer,
    HeadquartersSettings,
    LegalEntity,
    Settings,
)

_KAFKA: Final = {
    "KAFKA_BOOTSTRAP_SERVERS": "bootstrap.servers",
    "KAFKA_SASL_USERNAME": "sasl.username",
    "KAFKA_SASL_PASSWORD": "sasl.password",
}
"""Properties by the variable that sets them."""


def load_settings(path: Path | None = None, kafka: Mapping[str, str] | None = None) -> Settings:
    """Load the effective settings. `path` and `kafka` come from the command line and take precedence.

    Only the default file, tenten.toml in the working directory, may be absent.
    Raises: `SettingsError`.
    """
    named = path or (Path(configured) if (configured := os.environ.get("TENTEN_CONFIG")) else None)
    file = (named or Path(FILE_NAME)).absolute()
    document = read_document(file) if named is not None or file.exists() else {}
    document["kafka"] = {
        **dict(flatten(_table(document, "kafka"))),
        **{key: value for name, key in _KAFKA.items() if (value := os.environ.get(name))},
        **dict(flatten(kafka_of_environment())),
        **(kafka or {}),
    }
    if registry := os.environ.get("SCHEMA_REGISTRY_URL"):
        document["schema_registry_url"] = registry
    if database := os.environ.get("TENTEN_HEADQUARTERS_URL"):
        document["headquarters"] = {**_table(document, "headquarters"), "database": database}
    try:
        return Settings.model_validate(document, context={"directory": file.parent})
    except ValidationError as error:
        raise SettingsError(f"{'; '.join(problems(error))} ({file})") from None


def read_document(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises: `SettingsError`."""
    try:
        return parsed(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error


def parsed(text: str) -> dict[str, Any]:
    """The tables of a TOML document, by a faster parser if it is long and that is installed; both give the same.

    Raises: `ValueError`, always with the same text.
    """
    if len(text) > _LONG_CHARACTERS:
        try:
            import rtoml
        except ImportError:
            return tomllib.loads(text)
        try:
            return rtoml.loads(text)
        except rtoml.TomlParsingError:
            # tomllib says where.
            return tomllib.loads(text)
    return tomllib.loads(text)


_LONG_CHARACTERS: Final = 100_000
"""A file with some hundred channels."""


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"{name}: write a table, [{name}]")
    return table


def problems(error: ValidationError) -> Iterator[str]:
    """Yield a clause for each error: where, and what to write. Never the value, which may be secret."""
    for problem in error.errors(include_url=False, include_input=False):
        path = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        match problem["type"]:
            case "extra_forbidden":
                text = "unknown setting" + _suggestion(str(problem["loc"][-1]))
            case "missing":
                text = "is missing"
            case "value_error":
                text = str(problem["ctx"]["error"])
            case _:
                text = problem["msg"][0].lower() + problem["msg"][1:]
        yield f"{path}: {text}" if path else text


def _suggestion(name: str) -> str:
    tables = (Settings, HeadquartersSettings, LegalEntity, AccountNumbers, Channel, DefaultCustomer)
    fields = {field for table in tables for field in table.model_fields}
    if name in fields:
        return " in this table"
    similar = get_close_matches(name, fields, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""

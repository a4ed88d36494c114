"""Types of single settings. Their errors say what to write instead."""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, StringConstraints, ValidationInfo
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tenten.rules.limits import countries, currencies
from tenten.rules.number_sequence import number_format


def _id(value: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,63}", value):
        raise ValueError("use lowercase letters, digits, - and _, at most 64, and begin with a letter or a digit")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch("[A-Za-z0-9._-]{0,100}", value):
        raise ValueError("use letters, digits, . - and _, at most 100; Kafka allows no others in names")
    return value


def _attribute_name(value: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]{1,60}", value):
        raise ValueError("use letters, digits, - and _, at most 60; label has the name that a clerk sees")
    return value


def _plain_text(value: Any) -> Any:
    """A number, or true or false, as the text that it is written as."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


def _number_text(value: str) -> str:
    try:
        is_number = Decimal(value).is_finite()
    except InvalidOperation:
        is_number = False
    if not is_number:
        raise ValueError("write a number")
    return value


def _country(value: str) -> str:
    if value not in countries():
        raise ValueError("write the two letters of ISO 3166, for example US")
    return value


def _currency(value: str) -> str:
    if value not in currencies():
        raise ValueError("write the three letters of ISO 4217, for example USD")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("write a name of the IANA time zone database, for example America/Chicago") from error
    return value


def _number_format(value: str) -> str:
    number_format(value)
    return value


def _database_address(value: str, info: ValidationInfo) -> str:
    """A plain address; the path of a SQLite file becomes absolute, relative to the directory of tenten.toml."""
    url = _plain_url(value)
    if url.drivername == "postgresql":
        return value
    if not url.database or url.database == ":memory:":
        raise ValueError("write the path of a file, for example sqlite:///houston.db")
    return url.set(database=str((settings_directory(info) / url.database).resolve())).render_as_string(
        hide_password=False
    )


def _headquarters_address(value: str) -> str:
    if _plain_url(value).drivername != "postgresql":
        raise ValueError("headquarters needs PostgreSQL; write postgresql://user@host/database")
    return value


def _plain_url(value: str) -> URL:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError) as error:
        raise ValueError("write postgresql://user@host/database or sqlite:///file.db") from error
    if url.drivername not in ("postgresql", "sqlite"):
        raise ValueError(f"write plain postgresql:// or sqlite:// instead of {url.drivername}://")
    return url


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write an address like http://127.0.0.1:8081")
    return value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or value != f"{parts.scheme}://{parts.netloc}" or "*" in value:
        raise ValueError("write each origin, such as https://till.example.com, without a path")
    return value


def settings_directory(info: ValidationInfo) -> Path:
    """The directory of tenten.toml, to which paths in it are relative."""
    return Path((info.context or {}).get("directory", "."))


def lowercase(value: Any) -> Any:
    """The text in lower case; other values unchanged."""
    return value.lower() if isinstance(value, str) else value


def uppercase(value: Any) -> Any:
    """The text in upper case; other values unchanged."""
    return value.upper() if isinstance(value, str) else value


Id = Annotated[str, AfterValidator(_id)]
Country = Annotated[str, AfterValidator(_country)]
Currency = Annotated[str, AfterValidator(_currency)]
Language = Annotated[str, StringConstraints(min_length=2, max_length=35)]
AttributeName = Annotated[str, AfterValidator(_attribute_name)]
PlainText = Annotated[str, BeforeValidator(_plain_text)]
NumberText = Annotated[PlainText, AfterValidator(_number_text)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
NumberFormat = Annotated[str, StringConstraints(max_length=64), AfterValidator(_number_format)]
Prefix = Annotated[str, AfterValidator(_prefix)]
DatabaseAddress = Annotated[str, AfterValidator(_database_address)]
HeadquartersAddress = Annotated[DatabaseAddress, AfterValidator(_headquarters_address)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Origin = Annotated[str, AfterValidator(_origin)]

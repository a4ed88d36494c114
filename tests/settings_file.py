"""The `tenten.toml` of tests, put together from parts."""

from collections.abc import Mapping, Sequence
from typing import Final

PARTITIONS: Final = 3
"""Of each keyed topic: enough for records of two customers to be in different partitions."""


def general(prefix: str = "", *, partitions: int = PARTITIONS, registry: str | None = None) -> str:
    """The settings above all tables."""
    lines = [f"partitions = {partitions}"]
    if prefix:
        lines.append(f'prefix = "{prefix}"')
    if registry is not None:
        lines.append(f'schema_registry_url = "{registry}"')
    return "\n".join(lines) + "\n"


def kafka(bootstrap_servers: str, **properties: str) -> str:
    """`[kafka]`; more properties by name, with `_` for each dot."""
    named = {
        "bootstrap.servers": bootstrap_servers,
        # How long the broker holds a fetch that finds nothing: a reader cannot do anything else with it meanwhile,
        # such as reading another partition.
        "fetch.wait.max.ms": "50",
        **{name.replace("_", "."): value for name, value in properties.items()},
    }
    return "[kafka]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in named.items())


def headquarters(database: str, **limits: int) -> str:
    """`[headquarters]`."""
    return "\n".join(["[headquarters]", f'database = "{database}"', *(f"{k} = {v}" for k, v in limits.items()), ""])


def legal_entity(
    name: str,
    number_format: str = "C-########",
    *,
    country: str = "US",
    currency: str = "USD",
    language: str = "en-US",
    continuous: bool = True,
) -> str:
    """`[legal_entities.NAME]`."""
    numbers = f'{{ format = "{number_format}", next = 1, continuous = {str(continuous).lower()} }}'
    return (
        f'[legal_entities.{name}]\ncountry = "{country}"\ncurrency = "{currency}"\nlanguage = "{language}"\n'
        f"account_numbers = {numbers}\n"
    )


USRT: Final = legal_entity("usrt")
DEMF: Final = legal_entity("demf", "D########", country="DE", currency="EUR", language="de-DE", continuous=False)


def channel(
    name: str,
    database: str | None = None,
    *,
    of: str = "usrt",
    address_books: Sequence[str] = (),
    may_erase: bool = False,
) -> str:
    """`[channels.NAME]`; by default with a SQLite database next to the file."""
    database = database or f"sqlite:///{name}.db"
    books = ", ".join(f'"{book}"' for book in address_books)
    table = f'[channels.{name}]\nlegal_entity = "{of}"\naddress_books = [{books}]\ndatabase = "{database}"\n'
    return table + "may_erase = true\n" * may_erase


def default_customer(channel_name: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """`[channels.NAME.default_customer]`."""
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in values.items()]
    return "\n".join([f"[channels.{channel_name}.default_customer]", *lines, ""])

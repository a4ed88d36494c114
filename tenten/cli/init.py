"""`tenten init`: a `tenten.toml` to start from."""

from pathlib import Path
from typing import Annotated, Final

import typer

from tenten.cli.output import print_line

CONFIGURATION: Final = """\
# Settings of tenten: one legal entity and two stores on one machine. All settings: docs/interface.md.
# The environment and the options of a command take precedence. `tenten config show` prints the effective settings.

# Kafka and headquarters' database. Without these, `tenten up` starts both on this machine.
# [kafka]
# "bootstrap.servers" = "127.0.0.1:9092"   # any property of librdkafka
# [headquarters]
# database = "postgresql://hq@127.0.0.1/headquarters"

[legal_entities.usrt]
country = "US"       # ISO 3166; default of customers' addresses and phone numbers
currency = "USD"     # ISO 4217
language = "en-US"   # BCP 47
# The first account number is C-00000001. Continuous: no number is left out.
account_numbers = { format = "C-########", next = 1, continuous = true }

# A channel is a store with its own database: a SQLite file, or "postgresql://user@host/database".
[channels.houston]
legal_entity = "usrt"
address_books = ["US"]   # receives the customers of these address books; none: all of the legal entity
database = "sqlite:///houston.db"
# creation = "sync"      # a new customer waits up to sync_seconds for the account number; default "async"
# sync_seconds = 2.0
# time_zone = "America/Chicago"   # of its business days; default UTC

[channels.seattle]
legal_entity = "usrt"
address_books = ["US"]
database = "sqlite:///seattle.db"
"""


def init(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="[DIRECTORY]",
            file_okay=False,
            show_default=False,
            help="Where to write it, created if missing. Default: this directory.",
        ),
    ] = Path(),
) -> None:
    """Write a commented tenten.toml to start from: two stores on SQLite, one legal entity.

    An existing tenten.toml is never overwritten: exit code 1.
    """
    from tenten.runtime.errors import TentenError

    file = directory / "tenten.toml"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(CONFIGURATION)
    except FileExistsError:
        raise TentenError(f"{file} exists, and is not overwritten") from None
    print_line(f"{file} is written: two stores, houston and seattle. Next:")
    if directory != Path():
        print_line(f"  cd {directory}")
    print_line("  tenten up")

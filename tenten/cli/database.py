"""`tenten database`: create and migrate the databases."""

from typing import TYPE_CHECKING

import typer

from tenten.cli.options import ChannelArgument, examples, noun
from tenten.cli.output import report
from tenten.cli.wiring import connected, make_local_database

if TYPE_CHECKING:
    from tenten.runtime.settings import Settings

app = noun("The databases of headquarters and of the channels.", "tenten database upgrade all")
upgrade = noun(
    "Create the tables, or migrate those of an earlier release. Idempotent.",
    "tenten database upgrade all",
)
app.add_typer(upgrade, name="upgrade")


@upgrade.command("headquarters", epilog=examples("tenten database upgrade headquarters"))
def upgrade_headquarters_command(context: typer.Context) -> None:
    """Headquarters' tables, and the number sequences of the legal entities.

    A number sequence that exists takes its format and continuity from tenten.toml, and never the next number.
    """
    upgrade_headquarters_database(connected(context))


@upgrade.command("channel", epilog=examples("tenten database upgrade channel houston"))
def upgrade_channel_command(context: typer.Context, name: ChannelArgument) -> None:
    """A channel's tables; a missing SQLite file is created."""
    upgrade_channel_database(connected(context), name)


@upgrade.command("all", epilog=examples("tenten database upgrade all"))
def upgrade_all_command(context: typer.Context) -> None:
    """Every configured database."""
    upgrade_all(connected(context))


def upgrade_all(settings: "Settings") -> None:
    """Upgrade headquarters' database, if it is configured, and every channel's."""
    if settings.headquarters.database is not None:
        upgrade_headquarters_database(settings)
    else:
        report("headquarters: no database is configured here, nothing to do")
    for name in settings.channels:
        upgrade_channel_database(settings, name)


def upgrade_headquarters_database(settings: "Settings") -> None:
    """Create or migrate headquarters' tables."""
    from tenten.sql.engine import open_database
    from tenten.sql.migrations import upgrade_headquarters

    address = settings.headquarters_database()
    make_local_database(settings)
    engine = open_database(address)
    try:
        upgrade_headquarters(engine, settings.legal_entities)
    finally:
        engine.dispose()
    report("headquarters: up to date")


def upgrade_channel_database(settings: "Settings", name: str) -> None:
    """Create or migrate a channel's tables."""
    from tenten.sql.engine import open_database
    from tenten.sql.migrations import upgrade_channel

    engine = open_database(settings.channel(name).database)
    try:
        upgrade_channel(engine)
    finally:
        engine.dispose()
    report(f"{name}: up to date")

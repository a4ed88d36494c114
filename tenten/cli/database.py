"""`tenten database`: create and migrate the databases."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from tenten.cli.options import ChannelArgument, examples, noun
from tenten.cli.output import report
from tenten.cli.wiring import connected, make_local_database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenten.runtime.settings import Settings

    StoreSettings = Callable[[Engine, Settings], None]

app = noun("The databases of headquarters and of the channels.", "tenten database upgrade all")
upgrade = noun(
    "Create the tables, or migrate those of an earlier release. Idempotent.",
    "tenten database upgrade all",
)
app.add_typer(upgrade, name="upgrade")


@upgrade.command("headquarters", epilog=examples("tenten database upgrade headquarters"))
def upgrade_headquarters_command(context: typer.Context) -> None:
    """Headquarters' tables.

    A database that never had settings takes the legal entities and channels of tenten.toml. Later only `tenten settings
    apply` changes them: differences are reported here.
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


def upgrade_all(settings: "Settings", store: "StoreSettings | None" = None) -> None:
    """Upgrade headquarters' database, if it is configured, and every channel's. `store`: see below."""
    if settings.headquarters.database is not None:
        upgrade_headquarters_database(settings, store)
    else:
        report("headquarters: no database is configured here, nothing to do")
    for name in settings.channels:
        upgrade_channel_database(settings, name)


def upgrade_headquarters_database(settings: "Settings", store: "StoreSettings | None" = None) -> None:
    """Create or migrate headquarters' tables, and make its key pair; `store` takes the settings, by default into a new
    registry only.
    """
    from tenten.identity.headquarters_keys import ensure_headquarters_keys
    from tenten.sql.engine import open_database
    from tenten.sql.migrations import upgrade_headquarters

    address = settings.headquarters_database()
    make_local_database(settings)
    engine = open_database(address)
    try:
        upgrade_headquarters(engine)
        with engine.begin() as headquarters:
            ensure_headquarters_keys(headquarters)
        (store or _store_first_settings)(engine, settings)
    finally:
        engine.dispose()
    report("headquarters: up to date")


def _store_first_settings(engine: "Engine", settings: "Settings") -> None:
    """Store the legal entities and channels of tenten.toml if there never were any; otherwise report differences."""
    from tenten.registry.apply import compare_registry, fill_new_registry
    from tenten.registry.values import registry_of_settings

    wanted = registry_of_settings(settings)
    if not fill_new_registry(engine, wanted, source="database upgrade").none:
        report(f"headquarters: has the settings of tenten.toml, channels: {len(wanted.channels):,}")
        return
    changes = compare_registry(engine, wanted, with_removed=False)
    if not changes.none:
        report(
            f"headquarters: its settings are not those of tenten.toml ({changes}). `tenten settings diff tenten.toml` "
            "shows the differences, `tenten settings apply tenten.toml` applies the file"
        )


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

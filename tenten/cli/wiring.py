"""The settings of a command: the configured ones, completed with local servers that run here."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from tenten.cli.options import everywhere

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from tenten.local import LocalServices
    from tenten.producers.till.open_channel import OpenChannel
    from tenten.runtime.settings import Settings

HEADQUARTERS_DATABASE: Final = "headquarters"
"""The name of headquarters' database on the local server."""


def configured(context: typer.Context) -> "Settings":
    """The settings from flags, environment and tenten.toml. Raises: `SettingsError`."""
    from tenten.runtime.settings import load_settings

    options = everywhere(context)
    return load_settings(options.config, options.kafka)


def configured_without_options(context: typer.Context) -> "Settings":
    """The same without the options of `--kafka`. Raises: `SettingsError`."""
    from tenten.runtime.settings import load_settings

    return load_settings(everywhere(context).config)


def connected(context: typer.Context) -> "Settings":
    """The same, with the local servers of the `data` directory for a broker or database that is not configured. One
    that has ended does not answer at its last address.

    Raises: `SettingsError`.
    """
    settings = configured(context)
    if not needs_local_servers(settings):
        return settings
    from tenten.local import started_last

    services = started_last(settings.data)
    return settings if services is None else with_local_servers(settings, services)


@contextmanager
def opened_channel(context: typer.Context, name: str, operator: str | None = None) -> "Generator[OpenChannel]":
    """The channel of that name, open until the block ends, for this operator.

    Raises: `SettingsError`, `DatabaseRefused`.
    """
    from tenten.producers.till.open_channel import open_channel

    with open_channel(configured(context), name, operator=operator) as opened:
        yield opened


@contextmanager
def headquarters_engine(context: typer.Context) -> "Generator[tuple[Settings, Engine]]":
    """The settings, and headquarters' database of this release. Raises: `SettingsError`, `DatabaseRefused`."""
    from tenten.sql.engine import open_database
    from tenten.sql.migrations import check_version

    settings = connected(context)
    engine = open_database(settings.headquarters_database())
    try:
        check_version(engine, "headquarters")
        yield settings, engine
    finally:
        engine.dispose()


@contextmanager
def at_headquarters(context: typer.Context) -> "Generator[Connection]":
    """A read-only transaction in headquarters' database. Raises: `SettingsError`, `DatabaseRefused`."""
    from tenten.sql.engine import consistent_view

    with headquarters_engine(context) as (_, engine), consistent_view(engine) as connection:
        yield connection


def needs_local_servers(settings: "Settings") -> bool:
    """Whether a broker or headquarters' database is not configured."""
    return not settings.kafka.get("bootstrap.servers") or settings.headquarters.database is None


def with_local_servers(settings: "Settings", services: "LocalServices") -> "Settings":
    """The settings with these servers for those that are not configured."""
    from tenten.local import database_url

    kafka = {"bootstrap.servers": services.bootstrap_servers, **{k: v for k, v in settings.kafka.items() if v}}
    database = settings.headquarters.database or database_url(services, HEADQUARTERS_DATABASE)
    headquarters = settings.headquarters.model_copy(update={"database": database})
    return settings.model_copy(update={"kafka": kafka, "headquarters": headquarters})


def make_local_database(settings: "Settings") -> None:
    """Create headquarters' database if it is on the local server of these settings; elsewhere it must exist."""
    from tenten.local import create_database, database_url, status

    services = status(settings.data)
    if services is not None and settings.headquarters.database == database_url(services, HEADQUARTERS_DATABASE):
        create_database(services.postgresql, HEADQUARTERS_DATABASE)

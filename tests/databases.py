"""Databases of tests, copied from templates: each kind is upgraded once in a run of the tests."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, get_args
from zlib import crc32

import psycopg
from filelock import FileLock
from psycopg import sql
from sqlalchemy.engine import make_url

from tenten.local import create_database
from tenten.local.postgres import address_of
from tenten.registry.apply import apply_registry, compare_registry
from tenten.registry.values import registry_of_settings
from tenten.runtime.settings import Settings
from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel, upgrade_headquarters

Kind = Literal["channel", "headquarters"]

RUN: Final = "TENTEN_TEST_RUN"
"""The variable with the name of this run of the tests, which all of its processes share."""

_MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES_MIN: Final = 6 * 1024**3


def create_from_template(server: str, database: str, kind: Kind) -> str:
    """Create a PostgreSQL database with the tables of this kind. Returns its address."""
    template = _template_name(kind)
    once(f"{template}.{crc32(server.encode()):08x}", lambda: _make_template(server, template, kind))
    copy_database(server, template, database)
    return address_of(server, database)


def channel_tables(url: str) -> None:
    """Give a channel's database its tables, unless it has them. A SQLite file is created."""
    file = Path(str(make_url(url).database))
    if url.startswith("sqlite"):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_sqlite_template(), file)
        return
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('channel_version')").fetchone() != (None,):
            return
    engine = open_database(url)
    upgrade_channel(engine)
    engine.dispose()


def headquarters_tables(url: str, settings: Settings) -> None:
    """Create the tables of headquarters' database, if missing, with the legal entities and channels of these settings.

    Those that the settings lack are removed.
    """
    wanted = registry_of_settings(settings)
    engine = open_database(url)
    upgrade_headquarters(engine)
    to_remove = [change.setting for change in compare_registry(engine, wanted).removed]
    apply_registry(engine, wanted, source="test", to_remove=to_remove)
    engine.dispose()


def copy_database(postgresql: str, template: str, database: str) -> None:
    """Create a copy of the template, which must have no connections."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(database), sql.Identifier(template)))


def drop_database(postgresql: str, database: str) -> None:
    """Drop it by force: the server may still have the connection of a process that the test killed."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def drop_templates() -> None:
    """Drop the templates that this run has made on a server that is not its own."""
    configured = os.environ.get("TENTEN_HEADQUARTERS_URL")
    if configured:
        for kind in get_args(Kind):
            drop_database(configured, _template_name(kind))


def _template_name(kind: Kind) -> str:
    return f"tenten_{_run()}_{kind}"


def _make_template(server: str, name: str, kind: Kind) -> None:
    engine = open_database(create_database(server, name))
    if kind == "channel":
        upgrade_channel(engine)
    else:
        upgrade_headquarters(engine)
    engine.dispose()


def _sqlite_template() -> Path:
    file = directory_of_run() / "channel.db"

    def make() -> None:
        engine = open_database(f"sqlite:///{file}")
        upgrade_channel(engine)
        # Closing the last connection removes the log, which leaves a single file.
        engine.dispose()

    once("channel.db", make)
    return file


def directory_of_run() -> Path:
    """The directory that all processes of this run share; the run removes it at its end.

    In memory if it is large enough: creating a database there takes a tenth of the time.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).total >= _MEMORY_BYTES_MIN
    directory = (_MEMORY if in_memory else Path(tempfile.gettempdir())) / f"tenten-tests-{_run()}"
    directory.mkdir(exist_ok=True)
    return directory


def _run() -> str:
    return os.environ[RUN]


def once(name: str, make: Callable[[], None]) -> None:
    """Call `make` in the first process of the run that needs its result; the others wait for it."""
    made = directory_of_run() / f"{name}.made"
    if made.exists():
        return
    with FileLock(directory_of_run() / f"{name}.lock"):
        if not made.exists():
            make()
            made.touch()

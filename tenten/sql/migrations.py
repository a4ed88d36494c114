"""Bring a database to this release's tables, and check that it has them."""

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import Connection, Engine, text

from tenten.runtime.errors import DatabaseRefused
from tenten.runtime.private_files import create_private_directory
from tenten.sql.engine import consistent_view

Which = Literal["headquarters", "channel"]

_MIGRATIONS: Final = Path(str(files("tenten.schemas"))) / "migrations"


def upgrade_headquarters(engine: Engine) -> None:
    """Bring headquarters' tables to this release. Idempotent.

    Raises: `DatabaseRefused` for a channel's database, or one of a newer release.
    """
    with engine.begin() as connection:
        _upgrade(connection, "headquarters")


def upgrade_channel(engine: Engine) -> None:
    """Bring a channel's tables to this release; creates a missing SQLite file, readable by its owner only. Idempotent.

    Raises: `DatabaseRefused` for headquarters' database, or one of a newer release.
    """
    if engine.dialect.name == "sqlite":
        create_private_directory(Path(str(engine.url.database)).parent)
    with engine.begin() as connection:
        _upgrade(connection, "channel")


def check_version(engine: Engine, which: Which) -> None:
    """Raises: `DatabaseRefused` when the tables are not those of this release."""
    advice = f"run `tenten database upgrade {which if which == 'headquarters' else 'channel NAME'}`"
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        raise DatabaseRefused(f"the database {engine.url.database} does not exist yet: {advice}")
    with consistent_view(engine) as connection:
        found = _revision(connection, which)
    if found != _head(which):
        raise DatabaseRefused(f"the database at {_shown(engine)} is not upgraded to this release: {advice}")


def _upgrade(connection: Connection, which: Which) -> None:
    # Imported here: it is slow, and only upgrades need it.
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        # Of two concurrent upgrades the second finds nothing to do. SQLite has only one writer.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('tenten.upgrade', 0))"))
    if _revision(connection, which) == _head(which):
        return
    config = Config(attributes={"connection": connection, "version_table": _version_table(which)})
    config.set_main_option("script_location", _escaped(_MIGRATIONS))
    config.set_main_option("version_locations", _escaped(_MIGRATIONS / which / "versions"))
    config.set_main_option("path_separator", "newline")
    command.upgrade(config, "head")


def _revision(connection: Connection, which: Which) -> str | None:
    """The revision of the tables; None for an empty database.

    Raises: `DatabaseRefused` for tables of the other kind, or of a newer release.
    """
    other: Which = "channel" if which == "headquarters" else "headquarters"
    names = {"ours": _version_table(which), "theirs": _version_table(other)}
    has_ours, has_theirs = connection.execute(_HAS_TABLES[connection.dialect.name], names).one()
    if has_theirs:
        raise DatabaseRefused(f"{_shown(connection.engine)} is a {other} database: {which} needs its own")
    if not has_ours:
        return None
    found = str(connection.scalar(text(f"SELECT version_num FROM {_version_table(which)}")))  # noqa: S608 - our own name
    if found > _head(which):
        raise DatabaseRefused(f"{_shown(connection.engine)} was upgraded by a newer tenten: install that release here")
    return found


# SQLAlchemy's inspector takes ten times as long, and every command of a till asks.
_HAS_TABLES: Final = {
    "postgresql": text("SELECT to_regclass(:ours) IS NOT NULL, to_regclass(:theirs) IS NOT NULL"),
    "sqlite": text("""
        SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :ours),
            EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :theirs)
        """),
}


def _version_table(which: Which) -> str:
    """One table per kind, which tells the kinds apart."""
    return f"{which}_version"


def _head(which: Which) -> str:
    """The newest revision: the number at the start of its file name."""
    return max(file.name.partition("_")[0] for file in (_MIGRATIONS / which / "versions").glob("[0-9]*.py"))


def _escaped(path: Path) -> str:
    """Escape percent signs for alembic's configuration."""
    return str(path).replace("%", "%%")


def _shown(engine: Engine) -> str:
    return engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=True)

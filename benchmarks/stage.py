"""The environment of one run: its own topics, databases and settings file, deleted afterwards."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from benchmarks.customers import ADDRESS_BOOK, LEGAL_ENTITY
from benchmarks.measuring import Database
from benchmarks.servers import Servers
from tenten.identity.channel_keys import add_channel_key
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import kid, new_key_pair, record_key
from tenten.identity.signing import RecordSigner
from tenten.identity.store_identity import write_identity
from tenten.kafka.topics_admin import admin_client, apply_topics
from tenten.local import create_database
from tenten.registry.apply import add_to_registry
from tenten.registry.values import registry_of_settings
from tenten.runtime.settings import Settings, load_settings
from tenten.schemas.topics import ALL
from tenten.sql.engine import open_database
from tenten.sql.migrations import upgrade_channel, upgrade_headquarters

Authentication = Literal["off", "require"]

PARTITIONS: Final = 12
"""Of each keyed topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The environment of one run. `settings` has the content of `file`, which the processes read."""

    servers: Servers
    settings: Settings
    file: Path
    signers: Mapping[str, RecordSigner]
    """By channel that has joined."""

    @property
    def directory(self) -> Path:
        """The directory of settings file, SQLite databases and logs."""
        return self.file.parent

    def channel_url(self, channel: str) -> str:
        """The URL of a channel's database."""
        return self.settings.channel(channel).database

    def sqlite_file(self, channel: str) -> Path:
        """The file of a channel's SQLite database."""
        return self.directory / f"{channel}.db"


@contextmanager
def stage(
    servers: Servers,
    channels: Mapping[str, Database],
    *,
    continuous: bool = True,
    authentication: Authentication | None = None,
) -> Iterator[Stage]:
    """Create topics with an unused prefix, empty databases of headquarters and channels, and the settings file.

    With `require` every channel has joined.
    """
    name = f"b{secrets.token_hex(4)}"
    directory = servers.directory / name
    directory.mkdir()
    file = directory / "tenten.toml"
    addresses = {
        channel: f"sqlite:///{directory / channel}.db"
        if kind == "sqlite"
        else _database_url(servers, f"{name}_{channel}")
        for channel, kind in channels.items()
    }
    headquarters = _database_url(servers, f"{name}_headquarters")
    kafka = {"bootstrap.servers": servers.bootstrap_servers, **servers.client_properties}
    checked = "" if authentication is None else f'authentication = "{authentication}"\n'
    file.write_text(checked + _toml(f"{name}-", kafka, headquarters, addresses, continuous))
    settings = load_settings(file)
    on_server = [
        f"{name}_headquarters",
        *(f"{name}_{channel}" for channel, kind in channels.items() if kind == "postgresql"),
    ]
    try:
        apply_topics(settings)
        for database in on_server:
            create_database(servers.postgresql, database)
        _upgrade(settings)
        signers = _join(settings) if authentication == "require" else {}
        yield Stage(servers=servers, settings=settings, file=file, signers=signers)
    finally:
        _drop(servers, settings, on_server)


def _toml(
    prefix: str, kafka: Mapping[str, str], headquarters: str, addresses: Mapping[str, str], continuous: bool
) -> str:
    lines = [
        f'prefix = "{prefix}"',
        f"partitions = {PARTITIONS}",
        "[kafka]",
        *(f'"{name}" = "{value}"' for name, value in kafka.items()),
        "[headquarters]",
        f'database = "{headquarters}"',
        f"[legal_entities.{LEGAL_ENTITY}]",
        'country = "US"',
        'currency = "USD"',
        'language = "en-US"',
        f'account_numbers = {{ format = "C-########", continuous = {str(continuous).lower()} }}',
    ]
    for channel, address in addresses.items():
        lines += [
            f"[channels.{channel}]",
            f'legal_entity = "{LEGAL_ENTITY}"',
            f'address_books = ["{ADDRESS_BOOK}"]',
            f'database = "{address}"',
        ]
    return "\n".join(lines) + "\n"


def _database_url(servers: Servers, name: str) -> str:
    return make_url(servers.postgresql).set(database=name).render_as_string(hide_password=False)


def _upgrade(settings: Settings) -> None:
    engine = open_database(settings.headquarters_database())
    upgrade_headquarters(engine)
    add_to_registry(engine, registry_of_settings(settings), source="benchmark")
    engine.dispose()
    for channel in settings.channels.values():
        engine = open_database(channel.database)
        upgrade_channel(engine)
        engine.dispose()


def _join(settings: Settings) -> Mapping[str, RecordSigner]:
    """Give every channel a key pair that headquarters knows; who signs for each."""
    now, signers = datetime.now(UTC), {}
    engine = open_database(settings.headquarters_database())
    for name, channel in settings.channels.items():
        pair = new_key_pair()
        with engine.begin() as headquarters:
            add_channel_key(headquarters, name, pair.public_key, operator=None, source="benchmark", now=now)
            public_key = ensure_headquarters_keys(headquarters).public_key
        store = open_database(channel.database)
        with store.begin() as connection:
            write_identity(connection, pair, public_key, now)
        store.dispose()
        signers[name] = RecordSigner(kid(pair.public_key), record_key(pair.private_key, public_key))
    engine.dispose()
    return signers


def _drop(servers: Servers, settings: Settings, databases: list[str]) -> None:
    """Delete topics and databases, which frees their disk space for the next run."""
    admin = admin_client(settings)
    for future in admin.delete_topics([settings.topic(topic) for topic in ALL]).values():
        future.exception()
    with psycopg.connect(servers.postgresql, autocommit=True) as connection:
        for database in databases:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

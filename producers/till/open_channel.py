"""An open channel: its settings and its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine

from tenten.avro.wire import WriterSchemas
from tenten.rules.definitions import CustomerDefinitions, TransactionDefinitions
from tenten.runtime.settings import Settings
from tenten.runtime.settings.from_headquarters import with_headquarters
from tenten.schemas.messages import ChannelSettings, CustomerState, CustomerType
from tenten.sql.channel_settings import read_channel_settings
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import check_version

SETTINGS_SECONDS: Final = 1.0
"""How long the settings are used before the database is asked for newer ones."""


class OpenChannel:
    """A channel's database, open until `close`, and the channel's settings. Thread-safe.

    The settings are those that headquarters has published, as the channel's process has stored them in the database;
    a change is used after `SETTINGS_SECONDS` at the latest. Before the first they are those of tenten.toml.
    """

    def __init__(self, settings: Settings, name: str, engine: Engine, operator: str | None = None) -> None:
        """Raises: `SettingsError` for an unknown channel; errors of the database."""
        self.name = name
        """The channel id in events."""
        self.operator = operator
        """The person who works at the till, for calls that name no operator."""
        self.engine = engine
        self.writers = WriterSchemas()
        """The Avro schemas of the payloads in the channel's own database."""
        self._configured = settings
        self._reading = Lock()
        self._published: ChannelSettings | None = None
        self._definitions: tuple[Settings, CustomerDefinitions, TransactionDefinitions] | None = None
        self._in_force = with_headquarters(settings, name, None)
        self._read_at = -SETTINGS_SECONDS
        self._refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database's connections. Idempotent."""
        self.engine.dispose()

    @property
    def settings(self) -> Settings:
        """The settings that are in force. Raises: errors of the database."""
        self._refresh()
        return self._in_force

    @property
    def published(self) -> ChannelSettings | None:
        """All that headquarters has published for this channel; None before the first. Raises: errors of the
        database.
        """
        self._refresh()
        return self._published

    @property
    def country(self) -> str:
        """The country of the channel's legal entity, ISO 3166 alpha-2. Raises: `SettingsError`, as the others."""
        return self.settings.legal_entity_of(self.name).country

    @property
    def legal_entity_id(self) -> str:
        """The legal entity of the channel's customers."""
        return self.settings.with_legal_entity(self.name).legal_entity

    @property
    def default_type(self) -> CustomerType:
        """The type of a new customer when neither the input nor its names determine one."""
        return self.settings.channel(self.name).default_customer.customer_type

    def default_customer(self, customer_type: CustomerType) -> CustomerState:
        """A new customer with the channel's defaults, before any input."""
        settings = self.settings
        channel, legal_entity = settings.with_legal_entity(self.name), settings.legal_entity_of(self.name)
        default = channel.default_customer
        return CustomerState(
            legal_entity=channel.legal_entity,
            customer_type=customer_type,
            language=default.language or legal_entity.language,
            currency=default.currency or legal_entity.currency,
            customer_group=default.customer_group,
            receipt_preference=default.receipt_preference,
            affiliations=default.affiliations,
            address_books=channel.address_books,
        )

    @property
    def definitions(self) -> CustomerDefinitions:
        """The attributes and customer groups that the legal entity has defined."""
        return self._defined()[1]

    @property
    def transaction_definitions(self) -> TransactionDefinitions:
        """The attributes of orders and sales that the legal entity has defined."""
        return self._defined()[2]

    def _defined(self) -> tuple[Settings, CustomerDefinitions, TransactionDefinitions]:
        settings, known = self.settings, self._definitions
        if known is None or known[0] is not settings:
            entity = settings.legal_entity_of(self.name)
            known = self._definitions = (settings, entity.definitions(), entity.transaction_definitions())
        return known

    def _refresh(self) -> None:
        """Read the settings again when they are due. One thread does; the others use those that they have meanwhile:
        the caller may hold a connection of the pool, and this takes a second one.
        """
        if monotonic() - self._read_at < SETTINGS_SECONDS or not self._reading.acquire(blocking=False):
            return
        try:
            self._published, self._in_force = self._read_settings()
            self._read_at = monotonic()
        finally:
            self._reading.release()

    def _read_settings(self) -> tuple[ChannelSettings | None, Settings]:
        with consistent_view(self.engine) as connection:
            stored = read_channel_settings(connection, self.name)
        published = None if stored is None else stored.settings
        if published == self._published:
            return self._published, self._in_force
        return published, with_headquarters(self._configured, self.name, published)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only connection that sees one state and blocks no writer."""
        with consistent_view(self.engine) as connection:
            yield connection


def open_channel(settings: Settings, name: str, *, operator: str | None = None) -> OpenChannel:
    """Open a channel's database. Use it as a context manager, or `close` it.

    `operator` is the person who works at the till, at most 64 characters. Every call that changes something takes
    another one, for a till that several clerks use.

    Raises: `SettingsError` for an unknown channel, `DatabaseRefused` when the tables are not those of this release.
    """
    engine = open_database(settings.channel(name).database)
    try:
        check_version(engine, "channel")
        return OpenChannel(settings, name, engine, operator)
    except BaseException:
        engine.dispose()
        raise

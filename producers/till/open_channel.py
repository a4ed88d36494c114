"""An open channel: its settings and its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine

from tenten.avro.wire import WriterSchemas
from tenten.runtime.settings import Channel, LegalEntity, Settings
from tenten.schemas.messages import CustomerState, CustomerType
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import check_version


class OpenChannel:
    """A channel's database, open until `close`, and the channel's settings. Thread-safe."""

    def __init__(self, settings: Settings, name: str, engine: Engine, operator: str | None = None) -> None:
        self.settings = settings
        self.name = name
        """The channel id in events."""
        self.operator = operator
        """The person who works at the till, for calls that name no operator."""
        self.engine = engine
        self.writers = WriterSchemas()
        """The Avro schemas of the payloads in the channel's own database."""
        self._channel: Channel = settings.channel(name)
        self._legal_entity: LegalEntity = settings.legal_entity_of(name)

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
    def country(self) -> str:
        """The country of the channel's legal entity, ISO 3166 alpha-2."""
        return self._legal_entity.country

    @property
    def legal_entity_id(self) -> str:
        """The legal entity of the channel's customers."""
        return self._channel.legal_entity

    @property
    def default_type(self) -> CustomerType:
        """The type of a new customer when neither the input nor its names determine one."""
        return self._channel.default_customer.customer_type

    def default_customer(self, customer_type: CustomerType) -> CustomerState:
        """A new customer with the channel's defaults, before any input."""
        default = self._channel.default_customer
        return CustomerState(
            legal_entity=self._channel.legal_entity,
            customer_type=customer_type,
            language=default.language or self._legal_entity.language,
            currency=default.currency or self._legal_entity.currency,
            customer_group=default.customer_group,
            receipt_preference=default.receipt_preference,
            affiliations=default.affiliations,
            address_books=self._channel.address_books,
        )

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
    except BaseException:
        engine.dispose()
        raise
    return OpenChannel(settings, name, engine, operator)

"""Column types, and the columns of a customer that both databases share.

GUIDs are `uuid` in PostgreSQL and text with hyphens in SQLite; times are `timestamptz` and ISO 8601 text in UTC;
lists and attributes are JSON. Enums are stored in lower case, as text.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Integer,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.schema import MetaData

from tenten.schemas.customer_fields import ScalarKind, scalar_fields

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Guid(TypeDecorator[str]):
    """A GUID as lowercase text with hyphens: native `uuid` in PostgreSQL, text in SQLite."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Uuid(as_uuid=False) if dialect.name == "postgresql" else String(36))


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC: `timestamptz` in PostgreSQL, ISO 8601 text with microseconds and `+00:00` in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(DateTime(timezone=True) if dialect.name == "postgresql" else String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else as_sqlite_time(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


def as_sqlite_time(time: datetime) -> str:
    """An aware time as SQLite holds it: ISO 8601 in UTC, with microseconds and `+00:00`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


IDENTITY: Final = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database generates; SQLite does so for INTEGER primary keys only."""


def state_columns() -> list[Column[Any]]:
    """New columns for the fields of `CustomerState` that have no table of their own."""
    scalars = (
        Column(field.name, Guid if field.kind is ScalarKind.GUID else Text, nullable=field.is_nullable)
        for field in scalar_fields()
    )
    lists = (Column(name, JSON, nullable=False) for name in ("address_books", "affiliations", "attributes"))
    return [*scalars, *lists]


def address_table(metadata: MetaData) -> Table:
    """`customer_addresses`: one row per address, with customer and address as key."""
    text = ("purpose", "name", "street", "city", "county", "state", "postal_code", "country")
    return Table(
        "customer_addresses",
        metadata,
        Column("customer_id", Guid, primary_key=True),
        Column("address_id", Guid, primary_key=True),
        *(Column(name, Text, nullable=False) for name in text),
        Column("updated_at", UtcTime, nullable=False),
    )


def contact_table(metadata: MetaData) -> Table:
    """`customer_contacts`: one row per phone number or e-mail address, with customer and contact as key."""
    return Table(
        "customer_contacts",
        metadata,
        Column("customer_id", Guid, primary_key=True),
        Column("contact_id", Guid, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("value", Text, nullable=False),
        Column("marketing_consent", Boolean, nullable=False),
        Column("description", Text, nullable=False),
    )


def topic_table(metadata: MetaData) -> Table:
    """`topics`: id and partition count of each topic when this database first read it. A changed count is an error."""
    return Table(
        "topics",
        metadata,
        Column("topic", Text, primary_key=True),
        Column("topic_id", Text, primary_key=True),
        Column("partitions", Integer, nullable=False),
    )

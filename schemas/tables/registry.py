"""The tables of headquarters' settings: legal entities, channels, and the history of their changes."""

from sqlalchemy import JSON, Boolean, Column, Double, Integer, MetaData, Table, Text, false

from tenten.schemas.tables.types import IDENTITY, UtcTime


def legal_entity_table(metadata: MetaData) -> Table:
    """One row per legal entity; the formats of its numbers are in the tables of its sequences."""
    return Table(
        "legal_entities",
        metadata,
        Column("legal_entity", Text, primary_key=True),
        Column("country", Text, nullable=False),
        Column("currency", Text, nullable=False),
        Column("language", Text, nullable=False),
        Column("changed_at", UtcTime, nullable=False),
        Column("customer_groups", JSON, nullable=False, comment="sorted; empty: any group"),
        Column("attributes", JSON, nullable=False, comment="definitions by name; empty: any"),
    )


def channel_table(metadata: MetaData) -> Table:
    """One row per channel, with everything but its database."""
    return Table(
        "channels",
        metadata,
        Column("channel_id", Text, primary_key=True),
        Column("legal_entity", Text, nullable=False),
        Column("address_books", JSON, nullable=False, comment="sorted; empty: all customers of the legal entity"),
        Column("creation", Text, nullable=False, comment="async or sync"),
        Column("sync_seconds", Double, nullable=False),
        Column("time_zone", Text, nullable=False),
        Column("default_customer", JSON, nullable=False, comment="defaults of new customers"),
        Column("changed_at", UtcTime, nullable=False),
        Column("may_erase", Boolean, nullable=False, server_default=false(), comment="customers of its legal entity"),
        Column("cut_off_hour", Integer, nullable=False, server_default="0", comment="when a business day begins"),
        Column("offline_customers", Text, nullable=False, server_default="all", comment="all, own or none"),
        Column("suspended_at", UtcTime, comment="since when its records are not accepted"),
        Column("suspended_reason", Text),
        Column("acceptance_changed_at", UtcTime, comment="last change of its key or suspension; null: never"),
    )


def settings_history_table(metadata: MetaData) -> Table:
    """One row per change of the two tables above, written in its transaction."""
    return Table(
        "settings_history",
        metadata,
        Column("change_id", IDENTITY, primary_key=True),
        Column("applied_at", UtcTime, nullable=False),
        Column("operator", Text, comment="null if unknown"),
        Column("source", Text, nullable=False, comment="the command that applied it"),
        Column("changes", JSON, nullable=False, comment="{added, changed, removed}, each [{setting, before, after}]"),
    )

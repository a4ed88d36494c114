"""Tables of a channel's database for those who look at it through HTTP: what has happened, and keys of requests."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, MetaData, Table, Text

from tenten.schemas.tables.types import Guid, UtcTime


def channel_events_table(metadata: MetaData) -> Table:
    """`channel_events`: what headquarters' replies have changed, in the order of the commits; without personal data."""
    return Table(
        "channel_events",
        metadata,
        Column("sequence", BigInteger, primary_key=True, autoincrement=False, comment="rises with every commit"),
        Column("type", Text, nullable=False, comment="numbered, synchronized, rejected, held, erased, posted, ..."),
        Column("subject", Text, nullable=False, comment="customer, order, sale or end_of_day"),
        Column("subject_id", Guid, nullable=False),
        Column("number", Text, comment="account number or sales order"),
        Column("codes", JSON, comment="of the reasons"),
        Column("at", UtcTime, nullable=False),
    )


def channel_event_state_table(metadata: MetaData) -> Table:
    """`channel_event_state`: one row, which every writer of events updates first."""
    return Table(
        "channel_event_state",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
        Column("last_sequence", BigInteger, nullable=False, comment="of the newest event"),
        Column("pruned_to", BigInteger, nullable=False, comment="events up to this sequence may be deleted"),
    )


def request_keys_table(metadata: MetaData) -> Table:
    """`request_keys`: idempotency keys, each with a digest of the request that used it first."""
    return Table(
        "request_keys",
        metadata,
        Column("request_key", Guid, primary_key=True),
        Column("digest", Text, nullable=False),
        Column("recorded_at", UtcTime, nullable=False),
        Index(None, "recorded_at"),
    )

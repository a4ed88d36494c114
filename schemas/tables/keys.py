"""The tables of keys: at headquarters, and in a channel's database."""

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

from tenten.schemas.tables.types import UtcTime

_ONE = "always 1"


def headquarters_key_table(metadata: MetaData) -> Table:
    """One row: the key pair of headquarters."""
    return Table(
        "headquarters_keys",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False, comment=_ONE),
        Column("private_key", LargeBinary, nullable=False, comment="X25519, 32 bytes; whoever has it is headquarters"),
        Column("public_key", LargeBinary, nullable=False),
        Column("made_at", UtcTime, nullable=False),
    )


def channel_key_table(metadata: MetaData) -> Table:
    """One row per key that a channel ever had; of each channel at most one is valid."""
    return Table(
        "channel_keys",
        metadata,
        Column("kid", Text, primary_key=True, comment="id of the key, which its records name"),
        Column("channel_id", Text, nullable=False),
        Column("public_key", LargeBinary, nullable=False, comment="X25519, 32 bytes"),
        Column("added_at", UtcTime, nullable=False),
        Column("added_by", Text, comment="operator; null if unknown"),
        Column("added_from", Text, nullable=False, comment="how it came: the command, or joining"),
        Column("revoked_at", UtcTime, comment="null while it is valid; a revoked key never becomes valid again"),
        Index("uq_channel_keys_valid", "channel_id", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )


def identity_table(metadata: MetaData) -> Table:
    """At most one row: the channel's own key pair and headquarters' public key. None before the channel has joined."""
    return Table(
        "identity",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False, comment=_ONE),
        Column("kid", Text, nullable=False, comment="id of the key, which its records name"),
        Column("private_key", LargeBinary, nullable=False, comment="X25519, 32 bytes; whoever has it is this channel"),
        Column("public_key", LargeBinary, nullable=False),
        Column("headquarters_public_key", LargeBinary, nullable=False),
        Column("joined_at", UtcTime, nullable=False),
    )


def relay_state_table(metadata: MetaData) -> Table:
    """At most one row: with what the relay last sent. When that changes, it sends its unsettled rows again."""
    return Table(
        "relay_state",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False, comment=_ONE),
        Column("kid", Text, comment="id of the key with which it signed; null without a key"),
        Column(
            "is_refused", Boolean, nullable=False, comment="headquarters accepts no record: suspended, or another key"
        ),
        Column("acceptance_changed_at", Text, comment="as published; null: never"),
    )

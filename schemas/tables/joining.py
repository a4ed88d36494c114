"""The tables with which stores join: at headquarters, and in a channel's database."""

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from tenten.schemas.tables.types import UtcTime


def channel_token_table(metadata: MetaData) -> Table:
    """One row per token: who made it, and which store used it. Rows stay, as the record of who joined."""
    return Table(
        "channel_tokens",
        metadata,
        Column("token_id", Text, primary_key=True, comment="derived from the secret; may be shown"),
        Column("channel_id", Text, nullable=False),
        Column("verifier", LargeBinary, nullable=False, comment="derived from the secret; proofs are checked with it"),
        Column(
            "has_password", Boolean, nullable=False, comment="the store's password at Kafka follows from the secret"
        ),
        Column("expires_at", UtcTime, nullable=False),
        Column("enrolled_at", UtcTime, nullable=False),
        Column("enrolled_by", Text, comment="the operator; null if unknown"),
        Column("enrolled_from", Text, nullable=False, comment="name of the machine"),
        Column("withdrawn_at", UtcTime, comment="when a newer token replaced it, unused"),
        Column("used_at", UtcTime),
        Column("used_kid", Text, comment="the key that joined with it"),
        Column("used_from", Text, comment="name of the machine, as the store gave it"),
        Column("refused", Integer, nullable=False, server_default="0", comment="requests with another key after it"),
        Column("refused_at", UtcTime, comment="the last of them"),
        Index(None, "channel_id"),
    )


def join_answer_table(metadata: MetaData) -> Table:
    """The newest answers to requests to join, a few for each channel; they are published with its settings."""
    return Table(
        "join_answers",
        metadata,
        Column("channel_id", Text, primary_key=True),
        Column("nonce", Text, primary_key=True),
        Column("outcome", Text, nullable=False),
        Column("text", Text, nullable=False),
        Column("mac", LargeBinary, nullable=False, comment="headquarters' proof, for the key of the request"),
        Column("is_proven", Boolean, nullable=False, comment="whether the request proved that its writer has a token"),
        Column("answered_at", UtcTime, nullable=False),
    )


def joining_table(metadata: MetaData) -> Table:
    """One row per token, in a channel's database: the key with which the channel joins."""
    return Table(
        "joining",
        metadata,
        Column("token_id", Text, primary_key=True),
        Column("private_key", LargeBinary, nullable=False, comment="X25519, 32 bytes; empty after joining"),
        Column("public_key", LargeBinary, nullable=False),
        Column("nonce", Text, nullable=False, comment="names the attempt in headquarters' answer"),
        Column("started_at", UtcTime, nullable=False),
        Column("joined_at", UtcTime, comment="null until headquarters has accepted the key"),
    )

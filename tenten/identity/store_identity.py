"""The key pair of a store, in its own database."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from tenten.identity.keys import KeyPair, kid
from tenten.schemas.tables.channel import identity


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIdentity:
    """The keys with which a store proves that it wrote a record."""

    kid: str
    private_key: bytes = field(repr=False)
    public_key: bytes
    headquarters_public_key: bytes
    joined_at: datetime


def read_identity(channel: Connection) -> StoreIdentity | None:
    """The store's keys; None before it has joined."""
    row = channel.execute(select(identity)).one_or_none()
    if row is None:
        return None
    return StoreIdentity(
        kid=row.kid,
        private_key=row.private_key,
        public_key=row.public_key,
        headquarters_public_key=row.headquarters_public_key,
        joined_at=row.joined_at,
    )


def read_kid(channel: Connection) -> str | None:
    """The id of the store's key; None before it has joined."""
    return channel.scalar(select(identity.c.kid))


def write_identity(channel: Connection, pair: KeyPair, headquarters_public_key: bytes, now: datetime) -> None:
    """Store a key pair that headquarters has accepted, in place of an earlier one. Idempotent.

    The relay signs with it from about a second later, and sends its unsettled rows again.
    """
    channel.execute(delete(identity))
    channel.execute(
        insert(identity).values(
            id=1,
            kid=kid(pair.public_key),
            private_key=pair.private_key,
            public_key=pair.public_key,
            headquarters_public_key=headquarters_public_key,
            joined_at=now,
        )
    )

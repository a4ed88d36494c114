"""The key pair of headquarters, in its database."""

from datetime import UTC, datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from tenten.identity.keys import KeyPair, new_key_pair
from tenten.schemas.tables.headquarters import headquarters_keys


def read_headquarters_keys(headquarters: Connection) -> KeyPair | None:
    """The key pair; None before `ensure_headquarters_keys`."""
    row = headquarters.execute(select(headquarters_keys.c.private_key, headquarters_keys.c.public_key)).one_or_none()
    return None if row is None else KeyPair(bytes(row.private_key), bytes(row.public_key))


def ensure_headquarters_keys(headquarters: Connection) -> KeyPair:
    """The key pair; makes it if there is none. Idempotent, also when two processes call it at the same time."""
    pair = read_headquarters_keys(headquarters)
    if pair is None:
        private_key, public_key = new_key_pair()
        row = {"id": 1, "private_key": private_key, "public_key": public_key, "made_at": datetime.now(UTC)}
        headquarters.execute(insert(headquarters_keys).values(row).on_conflict_do_nothing())
        pair = read_headquarters_keys(headquarters)
        assert pair is not None  # inserted, by this transaction or by another one
    return pair

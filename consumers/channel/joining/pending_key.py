"""The key with which a store asks to join, in its database until headquarters has answered.

The store's current key, if it has one, stays in use meanwhile.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Engine, delete, insert, select, update

from tenten.identity.join_proof import NONCE_BYTES, token_id
from tenten.identity.keys import KeyPair, new_key_pair
from tenten.identity.store_identity import write_identity
from tenten.identity.token import Token
from tenten.schemas.messages import ChannelSettings
from tenten.schemas.tables.channel import joining, positions, resync_requests
from tenten.sql.channel_settings import RecordPosition, store_channel_settings
from tenten.sql.engine import consistent_view
from tenten.sql.upsert import insert_into

LOAD: Final = "the store has joined"
"""The reason of the resync that loads the customers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingKey:
    """The key of an attempt to join."""

    pair: KeyPair
    nonce: str
    """Names the attempt in headquarters' answer."""


def has_joined(engine: Engine, token: Token) -> bool:
    """Whether the store has joined with this token."""
    with consistent_view(engine) as connection:
        joined_at = select(joining.c.joined_at).where(joining.c.token_id == token_id(token.secret))
        return connection.scalar(joined_at) is not None


def pending_key(engine: Engine, token: Token) -> PendingKey:
    """The key for this token, made at the first call. That of an earlier token is forgotten."""
    name = token_id(token.secret)
    with engine.begin() as connection:
        connection.execute(delete(joining).where(joining.c.token_id != name))
        row = connection.execute(select(joining)).first()
        if row is None:
            pair = new_key_pair()
            values = {
                "token_id": name,
                "private_key": pair.private_key,
                "public_key": pair.public_key,
                "nonce": os.urandom(NONCE_BYTES).hex(),
                "started_at": datetime.now(UTC),
            }
            connection.execute(insert(joining).values(values))
            row = connection.execute(select(joining)).one()
    return PendingKey(pair=KeyPair(row.private_key, row.public_key), nonce=row.nonce)


def take_key(
    engine: Engine, token: Token, key: PendingKey, settings: ChannelSettings, position: RecordPosition
) -> None:
    """Use the key and the settings from now on: headquarters has accepted it. Idempotent. One SQL transaction.

    A store that has never read its customers is to load them (`requested_resync`).
    """
    now = datetime.now(UTC)
    with engine.begin() as connection:
        write_identity(connection, key.pair, token.headquarters_public_key, now)
        store_channel_settings(connection, settings, position, now)
        connection.execute(update(joining).values(joined_at=now, private_key=b""))
        if connection.execute(select(positions.c.partition).limit(1)).first() is None:
            request = insert_into(connection, resync_requests).values(reason=LOAD, requested_at=now)
            connection.execute(request.on_conflict_do_nothing())

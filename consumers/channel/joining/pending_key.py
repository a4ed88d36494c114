"""The key with which a store asks to join, in its database until headquarters has answered.

The store's current key, if it has one, stays in use meanwhile.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from sqlalchemy import Engine, insert, select, update

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


class Attempt(Enum):
    """How far the store has come with a token."""

    NEW = auto()
    PENDING = auto()
    """Its key is there, and headquarters may have accepted it."""
    JOINED = auto()
    OUTDATED = auto()
    """The store has joined with a token that it had later."""


def attempt_with(engine: Engine, token: Token) -> Attempt:
    """How far the store has come with this token. Changes nothing."""
    name = token_id(token.secret)
    with consistent_view(engine) as connection:
        rows = {row.token_id: row for row in connection.execute(select(joining))}
    row = rows.get(name)
    if row is None:
        return Attempt.NEW
    if any(other.joined_at is not None and other.started_at > row.started_at for other in rows.values()):
        return Attempt.OUTDATED
    return Attempt.PENDING if row.joined_at is None else Attempt.JOINED


def pending_key(engine: Engine, token: Token) -> PendingKey:
    """The key for this token, made at the first call. Those of other tokens stay."""
    name = token_id(token.secret)
    own_row = select(joining).where(joining.c.token_id == name)
    with engine.begin() as connection:
        row = connection.execute(own_row).one_or_none()
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
            row = connection.execute(own_row).one()
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
        own_row = joining.c.token_id == token_id(token.secret)
        connection.execute(update(joining).where(own_row).values(joined_at=now, private_key=b""))
        if connection.execute(select(positions.c.partition).limit(1)).first() is None:
            request = insert_into(connection, resync_requests).values(reason=LOAD, requested_at=now)
            connection.execute(request.on_conflict_do_nothing())

"""Keys of channels whose database is on the same machine as headquarters': made without a token."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from tenten.identity.channel_keys import add_channel_key, valid_key
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import new_key_pair
from tenten.identity.store_identity import read_identity, write_identity
from tenten.sql.engine import consistent_view


def give_key(headquarters: Engine, channel: Engine, channel_id: str, *, source: str) -> bool:
    """Give a channel a key that both databases know; whether it needed one. Idempotent, also after a crash.

    A channel whose database was replaced gets another key; the one before is revoked. `source`: for the history.
    """
    with consistent_view(channel) as connection:
        identity = read_identity(connection)
    with headquarters.begin() as connection:
        own_key = ensure_headquarters_keys(connection).public_key
        valid = valid_key(connection, channel_id)
    is_same = identity is not None and valid is not None and identity.kid == valid.kid
    if identity is not None and is_same and identity.headquarters_public_key == own_key:
        return False
    pair, now = new_key_pair(), datetime.now(UTC)
    with headquarters.begin() as connection:
        add_channel_key(connection, channel_id, pair.public_key, operator=None, source=source, now=now)
    with channel.begin() as connection:
        write_identity(connection, pair, own_key, now)
    return True

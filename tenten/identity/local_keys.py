"""Keys of channels whose database is on the same machine as headquarters': made without a token."""

from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, select

from tenten.identity.channel_keys import add_channel_key, valid_key
from tenten.identity.headquarters_keys import ensure_headquarters_keys
from tenten.identity.keys import new_key_pair
from tenten.identity.store_identity import read_identity, write_identity
from tenten.registry.apply import lock_registry
from tenten.runtime.errors import KeyNotAccepted
from tenten.schemas.tables.headquarters import channel_keys


def give_key(headquarters: Engine, channel: Engine, channel_id: str, *, source: str) -> bool:
    """Give a channel a key that both databases know; whether it needed one. Idempotent, also after a crash.

    A channel whose database was replaced gets another key if the one before is from the same `source` (a command, for
    the history); the one before is revoked. When two processes call it at the same time, both databases have the same
    key afterwards. Raises: `KeyNotAccepted` for a channel that has joined in another way: nothing was changed.
    """
    with headquarters.begin() as connection:
        lock_registry(connection)
        with channel.begin() as store:
            own_key = ensure_headquarters_keys(connection).public_key
            identity, valid = read_identity(store), valid_key(connection, channel_id)
            is_same = identity is not None and valid is not None and identity.kid == valid.kid
            if identity is not None and is_same and identity.headquarters_public_key == own_key:
                return False
            if valid is not None and _added_from(connection, valid.kid) != source:
                raise KeyNotAccepted(_joined_elsewhere(channel_id, source))
            pair, now = new_key_pair(), datetime.now(UTC)
            add_channel_key(connection, channel_id, pair.public_key, operator=None, source=source, now=now)
            write_identity(store, pair, own_key, now)
    return True


def _added_from(headquarters: Connection, kid: str) -> str | None:
    return headquarters.scalar(select(channel_keys.c.added_from).where(channel_keys.c.kid == kid))


def _joined_elsewhere(channel_id: str, source: str) -> str:
    return (
        f"{channel_id} has joined with a token, and its database here does not have that key: `tenten {source}` leaves "
        f"its key as it is. If the store is on another machine, delete [channels.{channel_id}] from the tenten.toml "
        f"here, headquarters keeps the channel; if it is to be here, run `tenten channel rotate-key {channel_id}`, and "
        "`tenten store join TOKEN` in this directory"
    )

"""Idempotency keys: the same key with the same content is a repeat, with another content it is refused.

The key is written in the SQL transaction of what the request writes, so that a crash leaves both or neither.
"""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, insert, select

from tenten.producers.till.database_session import reading
from tenten.producers.till.open_channel import OpenChannel
from tenten.runtime.errors import KeyReused
from tenten.schemas.tables.channel import request_keys

ERASED_DIGEST: Final = ""
"""The digest of the keys of an erased customer: a digest of a few fields can be guessed. They stay used."""

INSERT_SQLITE: Final = "INSERT INTO request_keys (request_key, digest, recorded_at) VALUES (?, ?, ?)"
INSERT_POSTGRESQL: Final = "INSERT INTO request_keys (request_key, digest, recorded_at) VALUES (%s, %s, %s)"


def is_repeat(connection: Connection, key: str, digest: str | None) -> bool:
    """Whether the key was used with this content; False also without a digest. Raises: `KeyReused`."""
    if digest is None:
        return False
    recorded = connection.scalar(select(request_keys.c.digest).where(request_keys.c.request_key == key))
    if recorded == ERASED_DIGEST:
        raise KeyReused("the customer of this idempotency key was erased: nothing was written")
    if recorded is not None and recorded != digest:
        raise KeyReused("this idempotency key was used with another content: nothing was written; choose another key")
    return recorded is not None


def record_key(connection: Connection, key: str, digest: str | None) -> None:
    """Record the key, if there is a digest. A key that another transaction has recorded meanwhile violates a unique
    key.
    """
    if digest is not None:
        row = {"request_key": key, "digest": digest, "recorded_at": datetime.now(UTC)}
        connection.execute(insert(request_keys), row)


def check_repeat(channel: OpenChannel, key: str, digest: str | None) -> None:
    """Check that what exists with this id is what the key was used for; without a digest, nothing is checked.

    Raises: `KeyReused`, `DatabaseRefused`.
    """
    if digest is None:
        return
    with reading(channel) as connection:
        if not is_repeat(connection, key, digest):
            raise KeyReused("this id exists already, and was not recorded with this key: nothing was written")

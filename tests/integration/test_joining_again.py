"""A store that joins again: the keys of its tokens, in its database."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, select, update

from tenten.consumers.channel.joining.pending_key import Attempt, attempt_with, pending_key
from tenten.identity.join_proof import token_id
from tenten.identity.keys import new_key_pair
from tenten.identity.token import Token
from tenten.schemas.tables.channel import joining
from tests.opened_databases import new_url, store

__all__ = ["new_url", "store"]


def token(secret: bytes) -> Token:
    """A token with this secret."""
    return Token(
        channel_id="houston",
        secret=secret,
        headquarters_public_key=new_key_pair().public_key,
        expires_at=datetime.now(UTC) + timedelta(days=1),
        kafka={},
    )


def test_key_of_each_token_stays_and_a_token_older_than_the_last_joined_is_outdated(store: Engine) -> None:
    """An old token neither takes the key of a newer one nor counts as joined once a newer one has joined."""
    # given
    old, new = token(bytes(32)), token(b"\1" * 32)
    assert attempt_with(store, old) is Attempt.NEW
    first, second = pending_key(store, old), pending_key(store, new)
    # then
    assert (pending_key(store, old), pending_key(store, new)) == (first, second)
    assert {attempt_with(store, old), attempt_with(store, new)} == {Attempt.PENDING}
    # when
    mark_joined(store, old)
    assert (attempt_with(store, old), attempt_with(store, new)) == (Attempt.JOINED, Attempt.PENDING)
    mark_joined(store, new)
    # then
    assert (attempt_with(store, old), attempt_with(store, new)) == (Attempt.OUTDATED, Attempt.JOINED)
    with store.connect() as connection:
        assert len(connection.execute(select(joining)).all()) == 2


def mark_joined(store: Engine, joined: Token) -> None:
    """What `take_key` writes into the row of the token."""
    with store.begin() as connection:
        own_row = joining.c.token_id == token_id(joined.secret)
        connection.execute(update(joining).where(own_row).values(joined_at=datetime.now(UTC)))

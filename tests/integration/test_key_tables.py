"""Keys in both databases: headquarters' pair, the keys of channels over time, and the identity of a store."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, delete, select

from tenten.identity.channel_keys import (
    ChannelKey,
    add_channel_key,
    read_channel_keys,
    revoke_channel_key,
    valid_key,
)
from tenten.identity.headquarters_keys import ensure_headquarters_keys, read_headquarters_keys
from tenten.identity.keys import KeyPair, kid, new_key_pair
from tenten.identity.local_keys import give_key
from tenten.identity.store_identity import StoreIdentity, read_identity, read_kid, write_identity
from tenten.registry.history import list_history
from tenten.registry.tables import registry_version
from tenten.runtime.errors import KeyNotAccepted
from tenten.schemas.tables.channel import identity
from tenten.schemas.tables.headquarters import headquarters_keys
from tenten.sql.engine import open_database
from tests.conftest import NewDatabase
from tests.opened_databases import new_url, store
from tests.threads import errors_of_threads

__all__ = ["new_url", "store"]

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(new_database: NewDatabase) -> Iterator[Engine]:
    """Headquarters' database."""
    opened = open_database(new_database("headquarters"))
    yield opened
    opened.dispose()


def add(engine: Engine, channel_id: str, public_key: bytes) -> ChannelKey:
    """Add a key in a transaction of its own."""
    with engine.begin() as headquarters:
        return add_channel_key(headquarters, channel_id, public_key, operator="alice", source="a test", now=NOW)


def revoke(engine: Engine, channel_id: str) -> ChannelKey | None:
    """Revoke the key of a channel in a transaction of its own."""
    with engine.begin() as headquarters:
        return revoke_channel_key(headquarters, channel_id, operator="alice", source="a test", now=NOW)


def test_headquarters_has_one_key_pair_whoever_makes_it(engine: Engine) -> None:
    """Workers that start at the same time make one pair, which never changes."""
    # given
    with engine.begin() as headquarters:
        assert read_headquarters_keys(headquarters) is None
    made: list[KeyPair] = []
    at_once = threading.Barrier(4)

    def make() -> None:
        with engine.begin() as headquarters:
            at_once.wait(10)
            made.append(ensure_headquarters_keys(headquarters))

    # when
    assert errors_of_threads(4, make) == []
    # then
    with engine.begin() as headquarters:
        assert {read_headquarters_keys(headquarters)} == set(made)
        assert len(headquarters.execute(select(headquarters_keys)).all()) == 1


def test_channel_has_one_valid_key_and_each_change_is_a_change_of_the_registry(engine: Engine) -> None:
    """A second key revokes the first; the same key again changes nothing; the history has the ids of the keys."""
    # given
    first, second = new_key_pair().public_key, new_key_pair().public_key
    # when
    assert add(engine, "houston", first) == ChannelKey(
        kid=kid(first), channel_id="houston", public_key=first, revoked_at=None
    )
    with engine.begin() as headquarters:
        version = registry_version(headquarters)
    add(engine, "houston", first)
    # then
    with engine.begin() as headquarters:
        assert registry_version(headquarters) == version is not None
    # when
    add(engine, "houston", second)
    assert revoke(engine, "houston") is not None
    assert revoke(engine, "houston") is None
    # then
    with engine.begin() as headquarters:
        assert valid_key(headquarters, "houston") is None
        keys = {key.kid: key.revoked_at for key in read_channel_keys(headquarters, "houston")}
        assert keys == {kid(first): NOW, kid(second): NOW}
        changes = [change.changed for change in list_history(headquarters, 10)]
    setting = "channels.houston.key"
    assert changes == [
        [{"setting": setting, "before": kid(second), "after": None}],
        [{"setting": setting, "before": kid(first), "after": kid(second)}],
        [{"setting": setting, "before": None, "after": kid(first)}],
    ]


def test_key_that_was_revoked_or_belongs_to_another_channel_is_refused(engine: Engine) -> None:
    """A stolen key cannot come back, and nobody takes over the key of another channel."""
    # given
    houston, seattle = new_key_pair().public_key, new_key_pair().public_key
    add(engine, "houston", houston)
    add(engine, "seattle", seattle)
    revoke(engine, "houston")
    # then
    with pytest.raises(KeyNotAccepted, match="channel enroll houston"):
        add(engine, "houston", houston)
    with pytest.raises(KeyNotAccepted, match=kid(seattle)):
        add(engine, "houston", seattle)
    with engine.begin() as headquarters:
        assert valid_key(headquarters, "houston") is None
        assert valid_key(headquarters, "seattle") is not None


def test_channels_of_this_machine_get_keys_and_a_store_elsewhere_keeps_its_own(engine: Engine, store: Engine) -> None:
    """A key of the same command is replaced when the database was; one that came with a token never is."""
    # given
    assert give_key(engine, store, "houston", source="up")
    assert not give_key(engine, store, "houston", source="up")
    with store.begin() as channel:
        channel.execute(delete(identity))
    assert give_key(engine, store, "houston", source="up")
    # when it has joined on another machine
    elsewhere = new_key_pair().public_key
    add(engine, "houston", elsewhere)
    # then
    with pytest.raises(KeyNotAccepted, match="tenten channel rotate-key houston"):
        give_key(engine, store, "houston", source="up")
    with engine.begin() as headquarters:
        valid = valid_key(headquarters, "houston")
        assert valid is not None
        assert valid.kid == kid(elsewhere)
        assert len(read_channel_keys(headquarters, "houston")) == 3


def test_two_commands_that_give_a_key_at_the_same_time_agree(engine: Engine, store: Engine) -> None:
    """One makes the key, and the others find it: headquarters and the store have the same one, and no other."""
    at_once = threading.Barrier(4)

    def give() -> None:
        at_once.wait(10)
        give_key(engine, store, "houston", source="up")

    # when
    assert errors_of_threads(4, give) == []
    # then
    with engine.begin() as headquarters, store.begin() as channel:
        assert [key.kid for key in read_channel_keys(headquarters)] == [read_kid(channel)]


def test_store_keeps_its_latest_identity(store: Engine) -> None:
    """A store that joins again has the new key; its private key is in no representation of it."""
    headquarters = new_key_pair().public_key
    with store.begin() as channel:
        assert (read_identity(channel), read_kid(channel)) == (None, None)
        write_identity(channel, new_key_pair(), headquarters, NOW)
    pair = new_key_pair()
    with store.begin() as channel:
        write_identity(channel, pair, headquarters, NOW)
    with store.begin() as channel:
        found = read_identity(channel)
        assert found == StoreIdentity(
            kid=kid(pair.public_key),
            private_key=pair.private_key,
            public_key=pair.public_key,
            headquarters_public_key=headquarters,
            joined_at=NOW,
        )
        assert read_kid(channel) == kid(pair.public_key)
    assert repr(pair.private_key) not in repr(found)

"""Join: from a token to a store with its own key, its settings and its customers.

killed                              then, run again with the same token
before headquarters has the request the same key is sent
after that                          the same answer is read
after the answer                    the customers are loaded, from the beginning
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from confluent_kafka import KafkaException
from sqlalchemy import Engine, select

from tenten.consumers.channel.distribution.resync import Progress, resync
from tenten.consumers.channel.joining.directory import prepare_directory
from tenten.consumers.channel.joining.exchange import ask_to_join
from tenten.consumers.channel.joining.pending_key import LOAD, has_joined, pending_key, take_key
from tenten.identity.store_identity import read_kid
from tenten.identity.token import Token, check_expiry, decode_token
from tenten.runtime.errors import JoinRefused, KafkaRefused
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
from tenten.runtime.settings.model import FILE_NAME
from tenten.schemas.tables.channel import resync_requests
from tenten.sql.engine import consistent_view, open_database
from tenten.sql.migrations import upgrade_channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A store that has joined."""

    channel_id: str
    kid: str
    """The id of its key."""
    directory: Path
    is_loaded: bool
    """Whether all customers are there; False when `stop` was set before."""
    suspended: str | None
    """Why headquarters accepts none of its records at the moment."""


def join(
    text: str,
    directory: Path,
    *,
    database: str | None = None,
    seconds_max: float,
    tell: Callable[[str], None],
    progress: Progress,
    stop: Event,
) -> Joined:
    """Join with a token, in this directory. Idempotent: after an interruption it continues where it was.

    `database`: the address for a new tenten.toml, None for a SQLite file. `tell` is called with each step that is done.
    Raises: `TokenRefused`, `JoinRefused`, `SettingsError`, `DatabaseRefused`, `KafkaRefused`: one sentence each.
    """
    token = decode_token(text)
    name = token.channel_id
    if not (directory / FILE_NAME).exists():
        check_expiry(token, datetime.now(UTC))
    settings = prepare_directory(directory, token, database).for_channel(name)
    failpoint("join.after_configuration")
    engine = open_database(settings.channel(name).database)
    try:
        upgrade_channel(engine)
        failpoint("join.after_database")
        suspended = None
        if has_joined(engine, token):
            tell(f"{name} has joined with this token already")
        else:
            check_expiry(token, datetime.now(UTC))
            suspended = _exchange(settings, engine, token, seconds_max, stop)
            tell(f"{name} has joined: headquarters knows its key")
        with consistent_view(engine) as connection:
            kid = read_kid(connection)
            request = select(resync_requests.c.reason).where(resync_requests.c.reason == LOAD)
            must_load = connection.scalar(request) is not None
        assert kid is not None  # stored when it joined
    finally:
        engine.dispose()
    is_loaded = not must_load or resync(settings, name, progress, stop)
    return Joined(channel_id=name, kid=kid, directory=directory.absolute(), is_loaded=is_loaded, suspended=suspended)


def _exchange(settings: Settings, engine: Engine, token: Token, seconds_max: float, stop: Event) -> str | None:
    """Have headquarters accept a key, and use it; why headquarters has suspended the channel, if it has."""
    key = pending_key(engine, token)
    failpoint("join.after_key")
    try:
        accepted = ask_to_join(settings, token, key, seconds_max, stop)
    except KafkaRefused as refusal:
        if not token.has_password:
            raise
        raise JoinRefused(
            f"{refusal}. Perhaps a newer token has replaced this one: then join with the newest"
        ) from refusal
    except KafkaException as error:
        address = settings.kafka.get("bootstrap.servers")
        raise JoinRefused(
            f"Kafka at {address} does not answer: check the network, then run this command again, it continues"
        ) from error
    failpoint("join.after_answer")
    take_key(engine, token, key, *accepted)
    failpoint("join.after_identity")
    return accepted.settings.suspended

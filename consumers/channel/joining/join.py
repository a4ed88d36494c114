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

from tenten.consumers.channel.distribution.load_progress import Progress
from tenten.consumers.channel.distribution.resync import resync
from tenten.consumers.channel.joining.directory import (
    create_settings,
    existing_settings,
    keep_password,
    settings_to_join,
)
from tenten.consumers.channel.joining.exchange import ask_to_join
from tenten.consumers.channel.joining.pending_key import LOAD, Attempt, attempt_with, pending_key, take_key
from tenten.identity.store_identity import read_kid
from tenten.identity.token import Token, check_expiry, decode_token
from tenten.runtime.errors import JoinRefused, KafkaRefused, TokenRefused
from tenten.runtime.failpoints import failpoint
from tenten.runtime.settings import Settings
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
    settings = existing_settings(directory, token)
    if settings is None:
        check_expiry(token, datetime.now(UTC))
        settings = create_settings(directory, token, database)
    failpoint("join.after_configuration")
    engine = open_database(settings.channel(name).database)
    try:
        upgrade_channel(engine)
        failpoint("join.after_database")
        suspended = None
        if _must_ask(engine, token):
            suspended = _exchange(directory, settings, engine, token, seconds_max=seconds_max, stop=stop)
            settings = existing_settings(directory, token) or settings
            tell(f"{name} has joined: headquarters knows its key")
        else:
            tell(f"{name} has joined with this token already")
        with consistent_view(engine) as connection:
            kid = read_kid(connection)
            request = select(resync_requests.c.reason).where(resync_requests.c.reason == LOAD)
            must_load = connection.scalar(request) is not None
        assert kid is not None  # stored when it joined
    finally:
        engine.dispose()
    is_loaded = not must_load or resync(settings.for_channel(name), name, progress, stop)
    return Joined(channel_id=name, kid=kid, directory=directory.absolute(), is_loaded=is_loaded, suspended=suspended)


def _must_ask(engine: Engine, token: Token) -> bool:
    """Whether headquarters must be asked; False if the store has joined with this token.

    With a key for this token headquarters is asked also after the token's expiry: it may have accepted the key before.
    Raises: `TokenRefused` for a token that has expired, or is older than the one with which the store has joined.
    """
    attempt = attempt_with(engine, token)
    if attempt is Attempt.OUTDATED:
        raise TokenRefused(
            "the store has joined with a newer token since, and nothing was changed; for another key ask headquarters "
            f"for a new token (`tenten channel rotate-key {token.channel_id}`)"
        )
    if attempt is Attempt.NEW:
        check_expiry(token, datetime.now(UTC))
    return attempt is not Attempt.JOINED


def _exchange(
    directory: Path, settings: Settings, engine: Engine, token: Token, *, seconds_max: float, stop: Event
) -> str | None:
    """Have headquarters accept a key, and use it; why headquarters has suspended the channel, if it has."""
    asking = settings_to_join(directory, settings, token).for_channel(token.channel_id)
    key = pending_key(engine, token)
    failpoint("join.after_key")
    try:
        accepted = ask_to_join(asking, token, key, seconds_max, stop)
    except KafkaRefused as refusal:
        if not token.has_password:
            raise
        raise JoinRefused(
            f"{refusal}. Perhaps a newer token has replaced this one: then join with the newest"
        ) from refusal
    except KafkaException as error:
        address = asking.kafka.get("bootstrap.servers")
        raise JoinRefused(
            f"Kafka at {address} does not answer: check the network, then run this command again, it continues"
        ) from error
    failpoint("join.after_answer")
    # Before the key: once that is stored, this is not repeated.
    keep_password(directory, settings, token)
    take_key(engine, token, key, *accepted)
    failpoint("join.after_identity")
    return accepted.settings.suspended
